//! Helpers for the tests of the whole mesh: starting one, asking it, waiting.

pub mod chart;
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

/// Whether a program is there that a test needs. Where every test must run, as
/// `.ci/run` has it by `WEIR_TESTS=all`, it is a failure that it is not; elsewhere
/// the test is left out with a word.
#[must_use]
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        assert!(std::env::var("WEIR_TESTS").as_deref() != Ok("all"), "no {program}: install it");
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// The program under test: `WEIR_BIN`, else the one that Cargo built beside the
/// tests.
#[macro_export]
macro_rules! weir {
    () => {
        std::env::var("WEIR_BIN")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_weir-under-test").to_owned())
    };
}
