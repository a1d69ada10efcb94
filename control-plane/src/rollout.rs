//! Drives rollouts: each step's weights and how far it is are one change.
//!
//! [`decide`] is pure: what is known of a rollout in, what to do out. [`act`] is what
//! people ask for, and the edits that each move makes. [`engine`] finds out what
//! there is to know, and makes the changes; each rollout has a task of its own there,
//! so that one that waits holds up nobody else.

mod act;
mod clock;
mod decide;
mod engine;
mod facts;
mod feed;
mod gate;
mod http;
mod judge;
mod live;
mod runner;
mod sources;
mod write_back;

pub use act::{Act, ManagedBy, abort, deletable, pause, pause_for, promote, resume, start};
pub use engine::keep;
pub use live::{Judged, JudgedMetric, Live, Rollouts, Verdict};
pub use write_back::Secret;

use weir_mesh::rollout::Rollout;

/// One line for the history: `step 2 of 5, setWeight 10, Progressing`.
#[must_use]
pub fn describe(rollout: &Rollout) -> String {
    let state = &rollout.state;
    let steps = rollout.spec.steps.len();
    let phase = state.phase.as_str();
    if state.phase.is_final() {
        return phase.to_owned();
    }
    if !state.begun {
        return format!("{phase}, not begun");
    }
    format!("{phase}, step {} of {steps}: {}", state.step + 1, rollout.step_text())
}
