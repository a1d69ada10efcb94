//! `weir replay`: recorded requests against a proposed configuration.

mod compare;
mod record;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use super::explain::snapshot;
use crate::Error;
use crate::client::Connect;
use crate::documents::proposed;
use crate::output::{Format, print, print_value};
use compare::Comparison;
use record::Recorded;

/// Longest line that is read; a router writes none that is longer, for headers
/// are bounded.
const MAX_LINE: u64 = 256 * 1024;

/// Lines between two reports of progress.
const PROGRESS: u64 = 50_000;

/// Arguments of `weir replay`.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// An access log of a router, or - for standard input
    log: PathBuf,
    /// What is proposed: documents that are laid over what the mesh has; a file, a
    /// directory, or - for standard input. May be given several times
    #[arg(short, long, value_name = "FILE|DIR|-", required = true)]
    file: Vec<PathBuf>,
    /// Compare with these documents instead of with what a mesh has. With a mesh file
    /// among them, and among those of --file, no mesh is asked
    #[arg(long, value_name = "FILE|DIR")]
    current: Vec<PathBuf>,
    /// Exit with 1 if any request would be treated differently
    #[arg(long)]
    check: bool,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl Replay {
    /// Runs it.
    ///
    /// # Errors
    /// The log cannot be read or has no request, the documents are refused, or the
    /// API's.
    pub fn run(self) -> Result<ExitCode, Error> {
        let stdin = Path::new("-");
        if self.log == stdin && self.file.iter().any(|file| file == stdin) {
            return Err(Error::new("standard input can be read once; name - once"));
        }
        let current = snapshot(self.current.clone(), &self.connect, false)?;
        let proposed = snapshot(self.file.clone(), &self.connect, false)?;
        let mut comparison =
            Comparison::new(proposed::compile(current)?, proposed::compile(proposed)?);
        let name = self.log.display().to_string();
        let wrong = |error: io::Error| Error::new(format!("cannot read {name}: {error}"));
        if self.log == stdin {
            read(&mut io::stdin().lock(), &mut comparison).map_err(wrong)?;
        } else {
            let file = File::open(&self.log).map_err(wrong)?;
            read(&mut BufReader::new(file), &mut comparison).map_err(wrong)?;
        }
        let result = comparison.finish();
        if result.requests == 0 {
            return Err(Error::new(format!(
                "{name} has no request to replay: {}; name an access log of a router",
                result.skipped()
            )));
        }
        match self.connect.output {
            Format::Table => print(&result.to_string())?,
            format => {
                let value: Result<Value, _> = serde_json::to_value(&result);
                print_value(format, &value.map_err(|error| Error::new(error.to_string()))?)?;
            }
        }
        Ok(if self.check && result.changed > 0 { ExitCode::from(1) } else { ExitCode::SUCCESS })
    }
}

/// Reads a log line by line, so that its size does not matter.
fn read(log: &mut dyn BufRead, comparison: &mut Comparison) -> io::Result<()> {
    let progress = io::stderr().is_terminal();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let length = (&mut *log).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        if length as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            log.skip_until(b'\n')?;
            comparison.bad(number, format!("is longer than {MAX_LINE} bytes"));
            continue;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match Recorded::read(&line) {
            Ok(recorded) => comparison.add(recorded),
            Err(why) => comparison.bad(number, why),
        }
        if progress && number % PROGRESS == 0 {
            eprint!("\r{number} lines");
        }
    }
    if progress {
        eprint!("\r\u{1b}[K");
    }
    Ok(())
}
