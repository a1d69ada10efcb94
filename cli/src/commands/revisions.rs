//! `weir diff REV REV` and `weir verify-history`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;
use weir_proto::weir::control::v1::{
    DiffRevisionsRequest, DiffRevisionsResponse, VerifyHistoryRequest, VerifyHistoryResponse,
};

use super::block_on;
use crate::Error;
use crate::client::Connect;
use crate::documents::diff::unified;
use crate::output::{Format, colours, print, print_message, yaml};

/// Prints what lies between two revisions. True: something does.
///
/// # Errors
/// The API's.
pub fn diff(connect: &Connect, from: u32, to: u32, object: &str) -> Result<bool, Error> {
    let request = DiffRevisionsRequest { from, to, object: object.to_owned() };
    let answer = block_on(async {
        Ok(connect.client().await?.diff_revisions(request).await?.into_inner())
    })?;
    if connect.output == Format::Table {
        print(&text(&answer, from, to)?)?;
    } else {
        print_message(connect.output, "weir.control.v1.DiffRevisionsResponse", &answer)?;
    }
    Ok(!answer.changes.is_empty())
}

fn text(answer: &DiffRevisionsResponse, from: u32, to: u32) -> Result<String, Error> {
    let document = |json: &str| match json {
        "" => Ok(String::new()),
        json => serde_json::from_str::<Value>(json)
            .map_err(|error| Error::new(format!("the API's answer is no JSON: {error}")))
            .and_then(|value| yaml(&value)),
    };
    let mut out = String::new();
    for change in &answer.changes {
        let (before, after) = (document(&change.before_json)?, document(&change.after_json)?);
        let names = (
            format!("revision-{from}/{}", change.object),
            format!("revision-{to}/{}", change.object),
        );
        out.push_str(&unified(&before, &after, (&names.0, &names.1), colours()));
    }
    Ok(out)
}

/// Arguments of `weir verify-history`.
#[derive(Debug, clap::Args)]
pub struct VerifyHistory {
    /// Read this data directory of a control plane that does not run, instead of
    /// asking one that does
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// SHA-256 of an entry that was noted earlier (`weir history -o json`): it must be
    /// in the history. May be given several times
    #[arg(long = "hash", value_name = "HASH")]
    hashes: Vec<String>,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl VerifyHistory {
    /// Runs it. Exits with 1 when something is not as it was written.
    ///
    /// # Errors
    /// It could not be verified.
    pub fn run(self) -> Result<ExitCode, Error> {
        let answer = match &self.data {
            Some(data) => {
                weir_control_plane::verify_history(data, &self.hashes).map_err(Error::new)?
            }
            None => block_on(async {
                let request = VerifyHistoryRequest { hashes: self.hashes };
                Ok(self.connect.client().await?.verify_history(request).await?.into_inner())
            })?,
        };
        if self.connect.output == Format::Table {
            print(&verdict(&answer))?;
        } else {
            let name = "weir.control.v1.VerifyHistoryResponse";
            print_message(self.connect.output, name, &answer)?;
        }
        Ok(if answer.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

fn verdict(answer: &VerifyHistoryResponse) -> String {
    let range = match (answer.first_revision, answer.revision) {
        (0, _) => "no entries".to_owned(),
        (first, last) => format!("{} entries, revisions {first} to {last}", answer.entries),
    };
    if answer.ok {
        let hash = if answer.hash.is_empty() {
            String::new()
        } else {
            format!("note this hash of the newest entry elsewhere: {}\n", answer.hash)
        };
        return format!("the history is what was written: {range}\n{hash}");
    }
    let faults = answer.faults.iter().map(|fault| match fault.revision {
        0 => format!("  {}\n", fault.description),
        revision => format!("  revision {revision}: {}\n", fault.description),
    });
    format!("the history is NOT what was written: {range}\n{}", faults.collect::<String>())
}
