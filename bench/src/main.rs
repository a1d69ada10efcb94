//! `weir-bench`: what the benchmark sends load with, and what answers it.
//!
//! The generator and the upstream share one core while the proxies have the
//! other, so that each of them must cost little: one thread, HTTP/1.1 by hand,
//! HTTP/2 by the `h2` crate alone. Every verb prints one JSON object at its
//! end; what is for people goes to standard error.

mod aes;
mod analysis;
mod buffer;
mod cpu;
mod first_byte;
mod grpc;
mod h2_stream;
mod http1;
mod idle;
mod load;
mod net;
mod pattern;
mod payload;
mod relay;
mod scale;
mod tls;
mod upstream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load, upstream and yardsticks of Weir's benchmark
#[derive(Parser)]
#[command(version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Answer HTTP/1.1, or HTTP/2 and gRPC, until SIGTERM
    Upstream(upstream::Options),
    /// Send requests, check every answer, and say what it took
    Load(Box<load::Options>),
    /// Open connections, use each once, and hold them
    Idle(Box<idle::Options>),
    /// Pass bytes on and look at none, until SIGTERM
    Relay(relay::Options),
    /// Encrypt and decrypt records of 16 KiB as fast as one core can
    Aes(aes::Options),
    /// Judge simulated canaries, thousands of times
    Analysis(analysis::Options),
    /// Start a command, and say when it first answered
    FirstByte(Box<first_byte::Options>),
    /// Drive a control plane with many simulated routers and instances
    Scale(Box<scale::Options>),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: Verb) -> Result<(), String> {
    match verb {
        Verb::Upstream(options) => block_on(async { upstream::run(options).await.map_err(text) }),
        Verb::Load(options) => block_on(load::run(*options)),
        Verb::Idle(options) => block_on(idle::run(*options)),
        Verb::Relay(options) => block_on(async { relay::run(options).await.map_err(text) }),
        Verb::Aes(options) => print(&aes::run(&options)?),
        Verb::Analysis(options) => print(&analysis::run(&options)?),
        Verb::FirstByte(options) => block_on(first_byte::run(*options)),
        Verb::Scale(options) => block_on(scale::run(*options)),
    }
}

/// Runs `work` on this thread, and prints what it gives.
fn block_on<T: Serialize>(work: impl Future<Output = Result<T, String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime.map_err(text)?.block_on(work)?;
    print(&report)
}

fn print(report: &impl Serialize) -> Result<(), String> {
    println!("{}", serde_json::to_string(report).map_err(text)?);
    Ok(())
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
