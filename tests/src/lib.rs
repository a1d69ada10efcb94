//! Helpers for the tests of the whole mesh: starting one, asking it, waiting.

mod cli;
mod http;
mod mesh;
pub mod process;
mod wait;
pub mod web;

pub use cli::Output;
pub use http::{Account, Call, Http, Reply};
pub use mesh::{Mesh, Process, free_port};
pub use wait::{DEADLINE, eventually, never};

/// The program under test: `WEIR_BIN`, else the one that Cargo built beside the
/// tests.
#[macro_export]
macro_rules! weir {
    () => {
        std::env::var("WEIR_BIN")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_weir-under-test").to_owned())
    };
}
