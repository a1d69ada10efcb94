//! `weir rollout watch`: a picture that is drawn again where somebody looks, a line
//! for each change where nobody does.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use weir_proto::weir::control::v1::rollout_status::Phase;
use weir_proto::weir::control::v1::{GetRolloutRequest, Rollout};

use super::show;
use crate::Error;
use crate::client::{Client, Connect};
use crate::commands::retry;
use crate::output::{Format, print, say, to_value};

/// What a program that waits for the end gets when nobody could tell it.
const UNKNOWN: u8 = 2;

/// Follows a rollout to its end, also past restarts of the control plane. Says with
/// [`UNKNOWN`] that it could not.
///
/// # Errors
/// The canary did not get everything.
pub(super) async fn follow(
    connect: &Connect,
    name: &str,
    format: Format,
) -> Result<ExitCode, Error> {
    let request = GetRolloutRequest { name: name.to_owned() };
    let open = |mut client: Client| {
        let request = request.clone();
        async move { client.watch_rollout(request).await }
    };
    let mut shown = Shown::new(format);
    let end = retry::follow(connect, open, |rollout: Rollout| {
        shown.next(&rollout)?;
        Ok(rollout.status.filter(show::is_final))
    });
    match end.await {
        Ok(status) if status.phase() == Phase::Succeeded => Ok(ExitCode::SUCCESS),
        Ok(status) => {
            Err(Error::new(format!("{name}: {}: {}", show::phase(&status), status.message)))
        }
        Err(why) => {
            eprintln!("error: how {name} ends is not known; watch it again: {why}");
            Ok(ExitCode::from(UNKNOWN))
        }
    }
}

/// What was shown last.
struct Shown {
    format: Format,
    picture: bool,
    /// Lines of the picture.
    drawn: usize,
    last: String,
}

impl Shown {
    fn new(format: Format) -> Self {
        let picture = format == Format::Table && std::io::stdout().is_terminal();
        Self { format, picture, drawn: 0, last: String::new() }
    }

    fn next(&mut self, rollout: &Rollout) -> Result<(), Error> {
        if self.picture {
            self.drawn = draw(&show::whole(rollout), self.drawn)?;
            return Ok(());
        }
        let line = match self.format {
            Format::Table => line(rollout),
            // One a line, for programs.
            _ => to_value("weir.control.v1.Rollout", rollout)?.to_string(),
        };
        if line != self.last {
            say(&line);
            self.last = line;
        }
        Ok(())
    }
}

/// Draws over what was drawn before; gives how many lines there are now.
fn draw(text: &str, before: usize) -> Result<usize, Error> {
    // Control sequences of ECMA-48: cursor up, erase to the end of the screen.
    let up = if before == 0 { String::new() } else { format!("\x1b[{before}A\x1b[J") };
    print(&format!("{up}{text}"))?;
    Ok(text.lines().count())
}

fn line(rollout: &Rollout) -> String {
    let status = rollout.status.clone().unwrap_or_default();
    let parts = [
        format!("{} {}", status.service, show::phase(&status)),
        format!("{} {} %", status.canary, status.weight),
        show::step(&status),
        status.message.clone(),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("; ")
}
