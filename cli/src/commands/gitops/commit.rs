//! One result of a rollout -> one commit.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use super::Receive;
use crate::commands::export;
use crate::mesh_file::edit;

/// What a rollout writes back, as far as it is needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    rollout: String,
    service: String,
    phase: String,
    revision: u32,
    #[serde(default)]
    actor: String,
    #[serde(default)]
    reason: String,
    documents: Vec<Value>,
}

/// Why there is no commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Trying again would not help.
    #[error("{0}")]
    Refused(String),
    /// It may.
    #[error("{0}")]
    Failed(String),
}

use CommitError::{Failed, Refused};

impl Receive {
    /// Edits the file and commits it; what was done, in one line. The same key again
    /// makes no second commit.
    pub fn commit(&self, body: &[u8], key: Option<&str>) -> Result<String, CommitError> {
        let told: Told = serde_json::from_slice(body)
            .map_err(|error| Refused(format!("is no result of a rollout: {error}")))?;
        let own = format!("{}-{}", told.rollout, told.revision);
        let trailer = format!("Weir-Idempotency-Key: {}", line(key.unwrap_or(&own)));
        if self.push {
            self.git(&["pull", "--quiet", "--rebase"])?;
        }
        let found =
            self.git(&["log", "-1", "--format=%h", "--fixed-strings", "--grep", &trailer])?;
        let done = if found.is_empty() {
            self.edit(&told, &trailer)?
        } else {
            format!("was committed before as {found}")
        };
        if self.push {
            // Also what could not be pushed the last time.
            self.git(&["push", "--quiet"])?;
        }
        Ok(format!("{}: {done}", line(&told.rollout)))
    }

    fn edit(&self, told: &Told, trailer: &str) -> Result<String, CommitError> {
        let path = self.repository.join(&self.file);
        let text = fs::read_to_string(&path)
            .map_err(|error| Failed(format!("cannot read {}: {error}", path.display())))?;
        let edited = edit::edit(&text, &told.documents, false)
            .map_err(|why| Failed(format!("{}:{why}", self.file.display())))?;
        if edited.text == text {
            return match edited.left.as_slice() {
                [] => Ok("nothing to change".to_owned()),
                left => Err(Refused(format!("nothing was edited: {}", left.join("; ")))),
            };
        }
        export::write(&path, &edited.text).map_err(|error| Failed(error.to_string()))?;
        let mut message = format!(
            "{}: {} of {}\n\n{}\n\n",
            line(&told.service),
            line(&told.phase),
            line(&told.rollout),
            line(&told.reason)
        );
        for left in &edited.left {
            message.push_str(&format!("Not edited: {}\n", line(left)));
        }
        message.push_str(&format!(
            "Weir-Rollout: {}\nWeir-Revision: {}\nWeir-Actor: {}\n{trailer}\n",
            line(&told.rollout),
            told.revision,
            line(&told.actor)
        ));
        let file = self.file.to_string_lossy();
        let committed =
            self.git(&["commit", "--quiet", "--message", &message, "--only", "--", &file]);
        if let Err(error) = committed {
            // Else the next try would find nothing to change.
            let _ = export::write(&path, &text);
            return Err(error);
        }
        Ok(format!("committed as {}", self.git(&["log", "-1", "--format=%h"])?))
    }

    /// Runs git there; what it printed.
    fn git(&self, args: &[&str]) -> Result<String, CommitError> {
        let mut command = Command::new("git");
        command.arg("-C").arg(Path::new(&self.repository));
        command.args(["-c", &format!("user.name={}", self.name)]);
        command.args(["-c", &format!("user.email={}", self.email)]);
        // Nobody is there to be asked.
        command.args(args).env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
        let output =
            command.output().map_err(|error| Failed(format!("cannot run git: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let verb = args.first().copied().unwrap_or_default();
            return Err(Failed(format!("git {verb}: {}", line(said.trim()))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// A text on one line, so that nobody can write trailers of a commit by it.
fn line(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
