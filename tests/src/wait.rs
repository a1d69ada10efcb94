//! Waiting for a condition instead of for a time.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take that should happen soon, on a machine that does
/// much else at once.
pub const DEADLINE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(25);

/// Asks until there is an answer.
///
/// # Panics
/// After [`DEADLINE`], saying what was waited for.
#[track_caller]
pub fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> impl Future<Output = T>
where
    F: Future<Output = Option<T>>,
{
    let began = Instant::now();
    let caller = std::panic::Location::caller();
    async move {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(began.elapsed() < DEADLINE, "{caller}: {what}: not within {DEADLINE:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Watches for a while that something does not happen.
///
/// # Panics
/// When it does.
pub async fn never<F: Future<Output = bool>>(
    what: &str,
    during: Duration,
    mut ask: impl FnMut() -> F,
) {
    let began = Instant::now();
    while began.elapsed() < during {
        assert!(!ask().await, "{what}: after {:?}", began.elapsed());
        tokio::time::sleep(POLL).await;
    }
}
