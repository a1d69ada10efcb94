//! `weir status`: has everyone applied what was asked, and for how long is
//! everyone's certificate good?

use std::time::{SystemTime, UNIX_EPOCH};

use weir_proto::weir::control::v1::{
    Catalogue, GetMeshRequest, ListRoutersRequest, ListRoutersResponse, RouterStatus,
};

use super::block_on;
use crate::Error;
use crate::client::Connect;
use crate::output::{Format, print, print_table, print_value, seconds, table, to_value};

/// Arguments of `weir status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl Status {
    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub fn run(self) -> Result<(), Error> {
        let (mesh, routers) = block_on(async {
            let mut client = self.connect.client().await?;
            let mesh = client.get_mesh(GetMeshRequest {}).await?.into_inner();
            Ok((mesh, client.list_routers(ListRoutersRequest {}).await?.into_inner()))
        })?;
        if self.connect.output != Format::Table {
            // Two answers of the API in one: what the table's first line says, and the rest.
            let mut both = to_value("weir.control.v1.ListRoutersResponse", &routers)?;
            both["mesh"] = to_value("weir.control.v1.Mesh", &mesh)?;
            return print_value(self.connect.output, &both);
        }
        let live = routers.routers.iter().filter(|router| router.live).count();
        print(&format!(
            "mesh {} at revision {}, {} of {} routers live, weir {}\n",
            mesh.trust_domain,
            mesh.revision,
            live,
            routers.routers.len(),
            mesh.version
        ))?;
        for catalogue in &mesh.catalogues {
            print(&lines(catalogue))?;
        }
        print("\n")?;
        print_routers(&routers)
    }
}

/// How things stand with another catalogue of services.
fn lines(catalogue: &Catalogue) -> String {
    let Catalogue { name, address, services, instances, .. } = catalogue;
    let since = match catalogue.seconds {
        0 => "a moment".to_owned(),
        some => seconds(some as f64),
    };
    let mut text = format!("{name} {address}: ");
    text.push_str(&match catalogue.in_touch {
        true => format!("in touch for {since}, {services} services, {instances} instances"),
        false => format!(
            "NOT in touch for {since}, what was known stays ({services} services, {instances} \
             instances): {}",
            catalogue.trouble
        ),
    });
    if catalogue.registered > 0 {
        text.push_str(&format!("; {} of this mesh registered there", catalogue.registered));
    }
    text.push('\n');
    for skipped in &catalogue.skipped {
        text.push_str(&format!("  left out: {skipped}\n"));
    }
    text
}

/// Prints routers as a table.
///
/// # Errors
/// Standard output is gone.
pub fn print_routers(answer: &ListRoutersResponse) -> Result<(), Error> {
    let mut table = table([
        "ROUTER",
        "ROLE",
        "SERVICE",
        "VERSION",
        "STATE",
        "REVISION",
        "LAG",
        "APPLIED IN",
        "CERTIFICATE",
        "REFUSED",
    ]);
    for router in &answer.routers {
        table.add_row([
            router.router.clone(),
            router.role.clone(),
            router.service.clone(),
            router.version.clone(),
            if router.live { "live" } else { "gone" }.to_owned(),
            router.applied_revision.to_string(),
            router.lag.to_string(),
            seconds(f64::from(router.apply_micros) / 1e6),
            certificate(router),
            router.refused.clone(),
        ]);
    }
    print_table(&table)
}

fn certificate(router: &RouterStatus) -> String {
    if router.certificate_not_after == 0 {
        return "none".to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let left = router.certificate_not_after as f64 - now;
    if left <= 0.0 { "expired".to_owned() } else { format!("{} left", seconds(left)) }
}
