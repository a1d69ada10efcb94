//! `weir certificates rotate`.

use weir_proto::weir::control::v1::RotateCertificatesRequest;

use super::block_on;
use crate::Error;
use crate::client::Connect;
use crate::output::{Format, print, print_message};

/// Arguments of `weir certificates`.
#[derive(Debug, clap::Args)]
pub struct Certificates {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Have every router renew its certificate now; no connection is dropped
    Rotate(Rotate),
}

#[derive(Debug, clap::Args)]
struct Rotate {
    /// Give the authority a new root first; both are trusted until the old
    /// one's certificates have run out
    #[arg(long)]
    new_root: bool,
    /// Goes into the history
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    connect: Connect,
}

impl Certificates {
    /// Which mesh, and how to print.
    pub fn connect(&mut self) -> &mut Connect {
        let Action::Rotate(rotate) = &mut self.action;
        &mut rotate.connect
    }

    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub fn run(self) -> Result<(), Error> {
        let Action::Rotate(rotate) = self.action;
        let request =
            RotateCertificatesRequest { new_root: rotate.new_root, reason: rotate.reason };
        let answer = block_on(async {
            Ok(rotate.connect.client().await?.rotate_certificates(request).await?.into_inner())
        })?;
        let format = rotate.connect.output;
        if format != Format::Table {
            return print_message(format, "weir.control.v1.RotateCertificatesResponse", &answer);
        }
        print(&format!(
            "{} routers were asked to renew; `weir status` shows their certificates\n",
            answer.routers
        ))?;
        for root in answer.roots {
            print(&format!("root SHA-256 {root}\n"))?;
        }
        Ok(())
    }
}
