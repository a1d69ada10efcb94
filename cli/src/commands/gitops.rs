//! `weir gitops receive`: what rollouts write back, as commits.

mod commit;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::Error;

/// Arguments of `weir gitops`.
#[derive(Debug, clap::Args)]
pub struct Gitops {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Be the webhook of a rollout's writeBack: set the weights in a file, and commit it
    #[command(after_help = "Example:\n  weir gitops receive --repository config --file mesh.yaml \
        --listen 127.0.0.1:9400 --secret-file secret --push")]
    Receive(Receive),
}

/// Arguments of `weir gitops receive`.
#[derive(Debug, clap::Args)]
pub struct Receive {
    /// A clone that nobody else works in
    #[arg(long, value_name = "DIR")]
    repository: PathBuf,
    /// Within it: a mesh file, or TrafficSplits
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Where it listens, in plaintext; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Accept only what is signed with this file's secret, which the control plane has by
    /// --write-back-secret
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Pull before, and push after
    #[arg(long)]
    push: bool,
    /// Author and committer
    #[arg(long, default_value = "Weir", value_name = "NAME")]
    name: String,
    /// Likewise
    #[arg(long, default_value = "weir@localhost", value_name = "ADDRESS")]
    email: String,
}

impl Gitops {
    /// Runs it.
    ///
    /// # Errors
    /// It cannot listen, or a file cannot be read.
    pub fn run(self) -> Result<(), Error> {
        match self.verb {
            Verb::Receive(args) => args.run(),
        }
    }
}
