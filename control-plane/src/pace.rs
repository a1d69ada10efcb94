//! How many things of a kind are done at once, so that a mesh that comes back all at
//! once is served in turn, and those that are here already are not kept waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whole snapshots that are on their way and not answered yet: each is copied into its
/// stream's buffer.
const WHOLES: usize = 64;
/// TLS handshakes. One costs about a millisecond.
const HANDSHAKES: usize = 128;
/// Certificates that are being signed.
const SIGNATURES: usize = 8;

/// The limits of a control plane.
pub struct Pace {
    /// Of whole snapshots.
    pub wholes: Arc<Limit>,
    /// Of TLS handshakes.
    pub handshakes: Arc<Limit>,
    /// Of certificates.
    pub signatures: Arc<Limit>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            wholes: Limit::new(WHOLES),
            handshakes: Limit::new(HANDSHAKES),
            signatures: Limit::new(SIGNATURES),
        }
    }
}

/// So many at once; the others wait in line.
pub struct Limit {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// One of them. The next may come when this is dropped.
pub struct Permit(#[allow(dead_code)] Option<OwnedSemaphorePermit>);

impl Limit {
    fn new(permits: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(permits));
        Arc::new(Self { permits, waiting: AtomicUsize::new(0) })
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits in line. Who stops waiting loses the place.
    pub async fn enter(self: Arc<Self>) -> Permit {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Permit(Some(permit));
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        // The semaphore is never closed.
        Permit(self.permits.clone().acquire_owned().await.ok())
    }
}

/// Counts one that waits, however that ends.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_comes_when_one_goes_and_who_gives_up_is_not_counted() {
        let limit = Limit::new(1);
        let first = limit.clone().enter().await;
        let second = tokio::spawn(limit.clone().enter());
        let third = tokio::spawn(limit.clone().enter());
        while limit.waiting() != 2 {
            tokio::task::yield_now().await;
        }
        second.abort();
        let _ = second.await;
        assert_eq!(limit.waiting(), 1);
        drop(first);
        third.await.unwrap();
        assert_eq!(limit.waiting(), 0);
    }
}
