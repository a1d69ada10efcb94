//! The router alone, small, for the sidecar image.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Weir's router: a sidecar, or the gateway.
#[derive(Parser)]
#[command(name = "weir-router", version)]
struct Cli {
    #[command(flatten)]
    args: weir_router::Args,
}

fn main() -> ExitCode {
    match weir_router::run(Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-router: {error}");
            ExitCode::FAILURE
        }
    }
}
