//! `weir apply -f FILE`: what a mesh file says of services and routes, as one
//! change to a mesh that runs.

use std::path::PathBuf;

use weir_proto::weir::control::v1::ApplyRequest;

use super::{block_on, print_change};
use crate::Error;
use crate::client::Connect;
use crate::mesh_file::{self, MeshFile};

/// Arguments of `weir apply`.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// The mesh file. Its services, weights, routes and options are applied;
    /// processes are neither started nor stopped
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Remove services and routes that the file does not name
    #[arg(long)]
    prune: bool,
    /// Answer when every live router has applied it
    #[arg(long)]
    wait: bool,
    /// Goes into the history
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl Apply {
    /// Runs it.
    ///
    /// # Errors
    /// The file is refused, or the API's.
    pub fn run(self) -> Result<(), Error> {
        let mesh = mesh_file::load(&self.file)?;
        let request = ApplyRequest {
            prune: self.prune,
            wait: self.wait,
            reason: self.reason,
            ..request(&mesh)
        };
        let change = block_on(async {
            Ok(self.connect.client().await?.apply(request).await?.into_inner())
        })?;
        print_change(self.connect.output, &self.file.display().to_string(), &change)
    }
}

/// A mesh file's desired state.
#[must_use]
pub fn request(mesh: &MeshFile) -> ApplyRequest {
    ApplyRequest {
        services: mesh.services.iter().map(|spec| (&spec.service).into()).collect(),
        routes: mesh.routes.iter().map(Into::into).collect(),
        policies: mesh.policies.iter().map(Into::into).collect(),
        tcp_routes: mesh.tcp_routes.iter().map(Into::into).collect(),
        options: Some((&mesh.options).into()),
        ..ApplyRequest::default()
    }
}
