//! The command line: starts meshes, and tells running ones what to do.

mod client;
mod commands;
mod documents;
mod error;
mod exec_child;
mod http_client;
pub mod mesh_file;
mod output;
mod runtime_file;
mod tls;
mod tour;
mod trace_tree;
mod up;
mod verbs;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

pub use error::Error;

/// Every verb and option, for those that write command lines of `weir`.
#[must_use]
pub fn command() -> clap::Command {
    verbs::Cli::command()
}

/// Runs the program with its process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    match verbs::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
