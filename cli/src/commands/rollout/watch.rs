//! `weir rollout watch`: a picture that is drawn again where somebody looks, a line
//! for each change where nobody does.

use std::io::IsTerminal as _;

use weir_proto::weir::control::v1::rollout_status::Phase;
use weir_proto::weir::control::v1::{GetRolloutRequest, Rollout};

use super::show;
use crate::Error;
use crate::client::Client;
use crate::output::{Format, print, say, to_value};

/// Follows a rollout to its end.
///
/// # Errors
/// The API's; or the canary did not get everything.
pub(super) async fn follow(client: &mut Client, name: &str, format: Format) -> Result<(), Error> {
    let request = GetRolloutRequest { name: name.to_owned() };
    let mut stream = client.watch_rollout(request).await?.into_inner();
    let picture = format == Format::Table && std::io::stdout().is_terminal();
    let mut drawn = 0;
    let mut last = String::new();
    while let Some(rollout) = stream.message().await? {
        if picture {
            drawn = draw(&show::whole(&rollout), drawn)?;
        } else if format == Format::Table {
            let line = line(&rollout);
            if line != last {
                say(&line);
                last = line;
            }
        } else {
            // One a line, for programs.
            say(&to_value("weir.control.v1.Rollout", &rollout)?.to_string());
        }
        let status = rollout.status.unwrap_or_default();
        if show::is_final(&status) {
            return match status.phase() {
                Phase::Succeeded => Ok(()),
                _ => {
                    Err(Error::new(format!("{name}: {}: {}", show::phase(&status), status.message)))
                }
            };
        }
    }
    Err(Error::new(format!("{name}: the control plane ended the stream; watch it again")))
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
