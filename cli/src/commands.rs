//! The commands that ask the control API, one file for each family.

pub mod access;
pub mod apply;
pub mod certificates;
pub mod change;
pub mod check;
pub mod delete;
pub mod diff;
pub mod explain;
pub mod export;
pub mod get;
pub mod gitops;
pub mod init;
pub mod inject;
pub mod replay;
pub mod retry;
pub mod revisions;
pub mod rollout;
pub mod schema;
pub mod status;
pub mod traces;
pub mod trial;

use std::future::Future;

use weir_proto::weir::control::v1::ChangeResponse;

use crate::Error;
use crate::output::{Format, print, print_message};

/// Runs a command's future to its end on this thread.
///
/// # Errors
/// The future's, or no runtime can be made.
pub fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(format!("cannot start: {error}")))?
        .block_on(future)
}

/// Prints what a change led to.
///
/// # Errors
/// Some router has not applied it although the command waited, or standard
/// output is gone.
pub fn print_change(format: Format, what: &str, change: &ChangeResponse) -> Result<(), Error> {
    if format != Format::Table {
        print_message(format, "weir.control.v1.ChangeResponse", change)?;
    } else {
        print(&format!("{}\n", describe(what, change)))?;
    }
    match &change.converged {
        Some(converged) if converged.applied < converged.routers => Err(not_converged(converged)),
        _ => Ok(()),
    }
}

fn not_converged(converged: &weir_proto::weir::control::v1::Converged) -> Error {
    let pending = converged.pending.iter();
    Error::new(format!(
        "{} of {} routers have not applied it yet; `weir status` follows them",
        converged.routers.saturating_sub(converged.applied),
        converged.routers
    ))
    .with(pending.map(|router| format!("{}: {}", router.router, router.reason)))
}

fn describe(what: &str, change: &ChangeResponse) -> String {
    if change.replayed {
        return format!(
            "{what}: done before with this idempotency key, as revision {}; nothing changed now{}",
            change.revision,
            change
                .converged
                .as_ref()
                .map(|c| format!(", applied by {} of {} routers", c.applied, c.routers))
                .unwrap_or_default()
        );
    }
    if change.unchanged {
        return format!("{what}: nothing to change; revision {} stays", change.revision);
    }
    match &change.converged {
        Some(converged) => format!(
            "{what}: revision {}, applied by {} of {} routers, the slowest in {} ms",
            change.revision, converged.applied, converged.routers, converged.slowest_ms
        ),
        None => format!("{what}: revision {}", change.revision),
    }
}
