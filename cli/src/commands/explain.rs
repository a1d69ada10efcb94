//! `weir explain`: what would happen to a request, and why.

mod ask;
mod story;

use std::path::PathBuf;

use weir_mesh::gateway_api;
use weir_mesh::model::Snapshot;
use weir_router::explain::{Asking, Caller, Compiled, Explanation};

use super::block_on;
use crate::Error;
use crate::client::Connect;
use crate::documents::{Files, Loaded, current, proposed};
use crate::output::{Format, colours, print, print_value};

/// Arguments of `weir explain`.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// The request: a method (GET when it is left out) and a URL: `http://HOST/PATH`,
    /// `grpc://HOST/PACKAGE.SERVICE/METHOD`, or `/PATH` at the gateway
    #[arg(num_args = 1..=2, required = true, value_names = ["METHOD", "URL"])]
    request: Vec<String>,
    /// A header of the request. May be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The service that asks
    #[arg(long, value_name = "SERVICE", conflicts_with = "gateway")]
    from: Option<String>,
    /// The request comes from outside. Also without --from, when the host is no service
    #[arg(long)]
    gateway: bool,
    /// Who asks, as its certificate says, instead of what --from would be:
    /// spiffe://DOMAIN/ns/NAMESPACE/sa/NAME
    #[arg(long, value_name = "SPIFFE-ID", conflicts_with = "gateway")]
    peer: Option<String>,
    /// Claims of the request's token as a JSON object, taken as verified: policies that
    /// ask for claims are decided by them
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// As if these documents were applied: a file, a directory, or - for standard
    /// input. With a mesh file among them no mesh is asked. May be given several times
    #[arg(short, long, value_name = "FILE|DIR|-")]
    file: Vec<PathBuf>,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl Explain {
    /// Runs it.
    ///
    /// # Errors
    /// The request is none, the documents are refused, or the API's.
    pub fn run(self) -> Result<(), Error> {
        let asked = ask::request(&self.request, &self.headers)?;
        let peer = self.peer.as_deref().map(ask::peer).transpose()?;
        let claims = self.claims.as_deref().map(ask::claims).transpose()?;
        let snapshot = snapshot(self.file.clone(), &self.connect, true)?;
        let compiled = proposed::compile(snapshot)?;
        let caller = self.caller(&compiled, &asked)?;
        let mut told = compiled.explain(&Asking { caller, peer, claims }, &asked);
        add_rule(&mut told, &compiled);
        match self.connect.output {
            Format::Table => print(&story::tell(&told, colours())),
            format => {
                let value = serde_json::to_value(&told);
                print_value(format, &value.map_err(|error| Error::new(error.to_string()))?)
            }
        }
    }

    fn caller(&self, compiled: &Compiled, asked: &http::Request<()>) -> Result<Caller, Error> {
        let names = || compiled.services().map(|service| service.name.as_str());
        let host = asked.uri().host().unwrap_or_default();
        if let Some(from) = &self.from {
            let found = compiled.services().find(|service| service.name.as_str() == from);
            let caller = match found {
                Some(service) => Caller::Service(Some(service.name.clone())),
                None => return Err(ask::no_service("--from", from, names())),
            };
            // What is no service may be outside of the mesh.
            return match compiled.names_service(host) || compiled.has_egress() {
                true => Ok(caller),
                false => Err(ask::no_service("the host", host, names())),
            };
        }
        let is_inside = compiled.names_service(host) || self.peer.is_some();
        Ok(match !self.gateway && is_inside {
            true => Caller::Service(None),
            false => Caller::Gateway,
        })
    }
}

/// The snapshot that is asked: of a running mesh, with documents over it; of files
/// alone when a mesh file is among them.
///
/// # Errors
/// The documents are refused, or the API's.
pub fn snapshot(
    file: Vec<PathBuf>,
    connect: &Connect,
    descriptors: bool,
) -> Result<Snapshot, Error> {
    if file.is_empty() {
        return block_on(async {
            proposed::of_mesh(&mut connect.client().await?, descriptors).await
        });
    }
    let loaded = Loaded::read(&Files::of(file))?;
    if loaded.has_mesh() {
        let documents = loaded.resolve([])?;
        let Some((_, mesh)) = &documents.mesh else {
            return Err(Error::new("the mesh file is gone"));
        };
        return Ok(proposed::with(proposed::of_file(mesh), &documents));
    }
    block_on(async {
        let client = connect.client().await.map_err(|error| {
            Error::new(format!(
                "{error}; or name a mesh file (kind: Mesh) with -f as well, which needs none"
            ))
        });
        let mut client = match client {
            Ok(client) => client,
            Err(error) => return Err(loaded.check().err().unwrap_or(error)),
        };
        let services = current::services(&mut client).await?;
        let documents = loaded.resolve(current::names(&services).collect::<Vec<_>>())?;
        Ok(proposed::with(proposed::of_mesh(&mut client, descriptors).await?, &documents))
    })
}

/// The rule as its document has it.
fn add_rule(told: &mut Explanation, compiled: &Compiled) {
    if let Some(matched) = &told.matched
        && let Some(route) = compiled.route(&matched.route)
    {
        told.rule = gateway_api::to_document(route)["spec"]["rules"][matched.rule].take();
    }
}
