//! What a router runs already, perhaps from another control plane: nothing older is sent.
//!
//! Unless there is nothing newer. A store may have been brought back from a copy, or been
//! exchanged, and then its numbers begin again below those that routers know. A router
//! that nobody tells anything any more is worse than one that goes back.

use std::time::Duration;

use tokio::time::Instant;

use crate::control::Control;
use crate::replica::Lead;
use crate::store::Revision;

/// How often a router that is held back is looked after.
pub const LOOK: Duration = Duration::from_millis(250);
/// Whoever was in touch all this time has said what it has: peers are heard twice a second
/// and gone after as long a silence.
const HEARD: Duration = Duration::from_secs(5);
/// A router is held back for so long, counted anew at each newer snapshot.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of how new our store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has more: the newest change that there is.
    Newest(Revision),
    /// As new as what the leader last said of its own; the newest change in it.
    AsLeader(Revision),
    /// There may be more elsewhere.
    Unknown,
}

impl Standing {
    /// This control plane's.
    pub fn of(control: &Control) -> Self {
        let replica = &control.replica;
        let lead = replica.lead.borrow().clone();
        let (revision, change) = {
            let desired = control.desired.borrow();
            (desired.revision, desired.newest_change)
        };
        match lead {
            // Whoever leads has caught up before.
            Lead::Own => Self::Newest(change),
            Lead::Nobody => Self::Unknown,
            Lead::Other(leader) => {
                let others = replica.others();
                let told = others.iter().find(|(peer, _)| *peer == leader);
                let told = told.filter(|(_, status)| status.in_touch && status.revision != 0);
                match told {
                    Some((_, status)) if status.revision <= revision => Self::AsLeader(change),
                    _ => Self::Unknown,
                }
            }
        }
    }
}

/// The revision below which a router is sent nothing.
#[derive(Debug)]
pub struct Floor {
    revision: Revision,
    /// It is held back: since when, and what there was then.
    held: Option<(Instant, Revision)>,
    warned: bool,
}

impl Floor {
    /// Of a router that runs this revision; 0: none.
    pub fn new(revision: Revision) -> Self {
        Self { revision, held: None, warned: false }
    }

    /// Whether the router waits, so that this is to be asked again soon.
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Whether the router may be sent a snapshot of revision `newest`.
    pub fn lets(
        &mut self,
        router: &str,
        newest: Revision,
        standing: impl FnOnce() -> Standing,
        now: Instant,
    ) -> bool {
        if newest >= self.revision {
            self.held = None;
            return true;
        }
        let standing = standing();
        let since = match self.held {
            Some((since, seen)) if seen == newest => since,
            _ => now,
        };
        self.held = Some((since, newest));
        let waited = now.saturating_duration_since(since);
        let lower = match standing {
            Standing::Newest(change) => Some(change),
            Standing::AsLeader(change) if waited >= HEARD => Some(change),
            _ if waited >= PATIENCE => Some(newest),
            _ => None,
        };
        match lower {
            // It is published in a moment.
            Some(lower) if lower >= self.revision => {}
            Some(lower) => {
                tracing::warn!(
                    router,
                    runs = self.revision,
                    newest,
                    "a router runs a newer revision than there is; it goes back to what there is"
                );
                self.revision = lower;
            }
            None if !self.warned => {
                self.warned = true;
                tracing::warn!(
                    router,
                    runs = self.revision,
                    newest,
                    "a router runs a newer revision than is known here; it waits"
                );
            }
            None => {}
        }
        let lets = newest >= self.revision;
        if lets {
            self.held = None;
        }
        lets
    }
}

#[cfg(test)]
mod tests {
    use super::{Floor, HEARD, PATIENCE, Standing};
    use std::time::Duration;
    use tokio::time::Instant;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn nothing_older_is_sent_while_there_may_be_something_newer() {
        let now = Instant::now();
        let mut floor = Floor::new(7);
        assert!(!floor.lets("r", 5, || Standing::Unknown, now) && floor.holds());
        let later = now + PATIENCE - MOMENT;
        assert!(!floor.lets("r", 6, || Standing::Unknown, later), "it catches up");
        assert!(!floor.lets("r", 6, || Standing::Unknown, later + PATIENCE - MOMENT));
        assert!(floor.lets("r", 7, || unreachable!(), later + PATIENCE) && !floor.holds());
        // The leader's own newest change is not published yet.
        let mut floor = Floor::new(7);
        assert!(!floor.lets("r", 6, || Standing::Newest(7), now));
        assert!(floor.lets("r", 7, || unreachable!(), now));
    }

    #[test]
    fn a_floor_above_all_that_there_is_is_dropped() {
        let now = Instant::now();
        let mut floor = Floor::new(1000);
        assert!(floor.lets("r", 1, || Standing::Newest(1), now) && !floor.holds());
        let mut floor = Floor::new(1000);
        assert!(!floor.lets("r", 1, || Standing::AsLeader(1), now));
        assert!(!floor.lets("r", 1, || Standing::AsLeader(1), now + HEARD - MOMENT));
        assert!(floor.lets("r", 1, || Standing::AsLeader(1), now + HEARD));
        let mut floor = Floor::new(1000);
        assert!(!floor.lets("r", 1, || Standing::Unknown, now));
        assert!(floor.lets("r", 1, || Standing::Unknown, now + PATIENCE));
    }
}
