//! `weir exec-child`: turns itself into another program that cannot outlive the
//! process that started it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Arguments of `weir exec-child`.
#[derive(Debug, clap::Args)]
pub struct ExecChild {
    /// Process id of the parent
    #[arg(long)]
    parent: i32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl ExecChild {
    /// Becomes the program. Returns only when it cannot.
    #[must_use]
    pub fn run(self) -> ExitCode {
        // The kernel keeps the signal across exec (prctl(2), PR_SET_PDEATHSIG).
        if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
            eprintln!("cannot tie this process to its parent: {error}");
            return ExitCode::FAILURE;
        }
        // A parent that was gone before the call above sends no signal any more.
        if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(self.parent) {
            eprintln!("the parent is gone");
            return ExitCode::FAILURE;
        }
        let Some((program, arguments)) = self.command.split_first() else {
            return ExitCode::FAILURE;
        };
        let error = Command::new(program).args(arguments).exec();
        eprintln!("cannot run {}: {error}", program.to_string_lossy());
        // As shells tell it: 127 for what is not there.
        ExitCode::from(127)
    }
}
