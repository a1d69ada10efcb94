//! Time as a number that atomics can hold.

use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Milliseconds from the first call in this process to `at`; never 0.
#[must_use]
pub fn millis(at: Instant) -> u64 {
    let start = *START.get_or_init(Instant::now);
    let since = at.saturating_duration_since(start);
    since.as_secs() * 1000 + u64::from(since.subsec_millis()) + 1
}

/// [`millis`] of this moment.
#[must_use]
pub fn now() -> u64 {
    millis(Instant::now())
}
