//! `weir apply -f FILE`: documents as one change to a mesh that runs.

use weir_proto::weir::control::v1::{ApplyRequest, ChangeResponse};

use super::{block_on, print_change};
use crate::Error;
use crate::client::{Client, Connect};
use crate::documents::{Documents, Files, Loaded, Request, current};
use crate::mesh_file::MeshFile;
use crate::output::{Format, print};

/// Arguments of `weir apply`.
#[derive(Debug, clap::Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Remove services, routes and policies that the mesh file does not name
    #[arg(long)]
    prune: bool,
    /// Have the control plane check everything and say what would change; nothing does
    #[arg(long)]
    dry_run: bool,
    /// Answer when every live router has applied it
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Goes into the history
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Refuse unless the mesh is at this revision
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    expected_revision: u32,
    /// Makes a retry of this command safe: a second one with the same key changes
    /// nothing and prints what the first did
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl Apply {
    /// Runs it.
    ///
    /// # Errors
    /// Every mistake of the documents with its place, or the API's.
    pub fn run(self) -> Result<(), Error> {
        let loaded = Loaded::read(&self.files)?;
        check_prune(&loaded, self.prune)?;
        let title = self.files.title();
        let (request, change) = block_on(async {
            let (mut client, documents) = resolve(loaded, self.prune, &self.connect).await?;
            let mut request = Request::new(&documents);
            request.message.prune = self.prune;
            request.message.dry_run = self.dry_run;
            request.message.wait = self.wait;
            request.message.reason = self.reason;
            request.message.expected_revision = self.expected_revision;
            request.message.idempotency_key = self.idempotency_key.unwrap_or_default();
            let answer = client.apply(request.message.clone()).await;
            let change = answer.map_err(|status| request.refused(status))?.into_inner();
            Ok((request, change))
        })?;
        request.warnings(&change).for_each(|line| eprintln!("{line}"));
        if self.connect.output != Format::Table {
            return print_change(self.connect.output, &title, &change);
        }
        if self.dry_run && !change.unchanged {
            return print(&format!(
                "{title}: would change this; nothing did, revision {} stays\n{}",
                change.revision,
                changes(&change)
            ));
        }
        let result = print_change(self.connect.output, &title, &change);
        print(&changes(&change))?;
        result
    }
}

fn changes(change: &ChangeResponse) -> String {
    change.changes.iter().map(|line| format!("  {line}\n")).collect()
}

/// Refuses to remove what only a mesh file can name.
///
/// # Errors
/// When there is none.
pub fn check_prune(loaded: &Loaded, prune: bool) -> Result<(), Error> {
    if prune && !loaded.has_mesh() {
        return Err(Error::new(
            "--prune removes every service, route and policy that is not named, so it needs a \
             mesh file (kind: Mesh), which names them; to remove some, use `weir delete`",
        ));
    }
    Ok(())
}

/// Reads the rest of documents by the services of a mesh.
///
/// # Errors
/// Every mistake, or no mesh answers.
pub async fn resolve(
    loaded: Loaded,
    prune: bool,
    connect: &Connect,
) -> Result<(Client, Documents), Error> {
    let asked = async {
        let mut client = connect.client().await?;
        // What a mesh file does not name will be gone.
        let services = if prune { Vec::new() } else { current::services(&mut client).await? };
        Ok::<_, Error>((client, services))
    };
    match asked.await {
        Ok((client, services)) => {
            let names: Vec<_> = current::names(&services).collect();
            Ok((client, loaded.resolve(names)?))
        }
        Err(error) => {
            // What is wrong with the files comes first: the user has just written them.
            loaded.check()?;
            Err(error)
        }
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
