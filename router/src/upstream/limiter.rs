//! A limit of what is under way, and a queue before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Counts what is under way, for all workers of a router. Who waits is let in in
/// turn; nobody overtakes.
#[derive(Debug)]
pub struct Limiter {
    limit: AtomicU32,
    inside: AtomicU32,
    waiting: AtomicU32,
    freed: Notify,
}

/// One that is inside, until it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Limiter>);

/// Why one was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// As many wait as may.
    Queue,
    /// It has waited for as long as it may.
    Waited,
}

impl Limiter {
    /// Nobody is inside.
    #[must_use]
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU32::new(limit),
            inside: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
        })
    }

    /// How many may be inside.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(SeqCst)
    }

    /// Changes the limit. Who is inside stays.
    pub fn set_limit(&self, limit: u32) {
        let before = self.limit.swap(limit, SeqCst);
        for _ in before..limit.min(before.saturating_add(self.waiting())) {
            self.freed.notify_one();
        }
    }

    /// How many are inside.
    #[must_use]
    pub fn inside(&self) -> u32 {
        self.inside.load(SeqCst)
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// Goes in when there is room and nobody waits for it.
    #[must_use]
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        if self.waiting() > 0 { None } else { self.enter() }
    }

    fn enter(self: &Arc<Self>) -> Option<Permit> {
        let limit = self.limit();
        let more = |inside| (inside < limit).then_some(inside + 1);
        self.inside.fetch_update(SeqCst, SeqCst, more).ok().map(|_| Permit(self.clone()))
    }

    /// Waits for room, with at most `queue` others before it, until `deadline`.
    ///
    /// # Errors
    /// [`Full`].
    pub async fn wait(self: &Arc<Self>, queue: u32, deadline: Instant) -> Result<Permit, Full> {
        let more = |waiting| (waiting < queue).then_some(waiting + 1);
        self.waiting.fetch_update(SeqCst, SeqCst, more).map_err(|_| Full::Queue)?;
        let _waits = Waits(self);
        loop {
            let freed = self.freed.notified();
            if let Some(permit) = self.enter() {
                return Ok(permit);
            }
            timeout_at(deadline, freed).await.map_err(|_| Full::Waited)?;
        }
    }
}

struct Waits<'a>(&'a Arc<Limiter>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
        // It may have been told of room that it does not take: the next one looks.
        if self.0.inside() < self.0.limit() && self.0.waiting() > 0 {
            self.0.freed.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, SeqCst);
        if self.0.waiting() > 0 {
            self.0.freed.notify_one();
        }
    }
}

/// The earlier of a deadline and `within` from now.
#[must_use]
pub fn until(deadline: Option<Instant>, within: Duration) -> Instant {
    let own = Instant::now() + within;
    deadline.map_or(own, |deadline| deadline.min(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_let_in_and_nobody_overtakes() {
        let limiter = Limiter::new(1);
        let first = limiter.try_enter().unwrap();
        assert!(limiter.try_enter().is_none());
        let waiter = limiter.clone();
        let soon = Instant::now() + Duration::from_secs(1);
        let waiting = tokio::spawn(async move { waiter.wait(1, soon).await });
        tokio::task::yield_now().await;
        assert_eq!(limiter.wait(1, soon).await.unwrap_err(), Full::Queue);
        drop(first);
        assert!(limiter.try_enter().is_none(), "it is the other's turn");
        let second = waiting.await.unwrap().unwrap();
        assert_eq!((limiter.inside(), limiter.waiting()), (1, 0));
        drop(second);
        assert!(limiter.try_enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_its_deadline() {
        let limiter = Limiter::new(1);
        let _inside = limiter.try_enter().unwrap();
        let soon = Instant::now() + Duration::from_secs(1);
        assert_eq!(limiter.wait(5, soon).await.unwrap_err(), Full::Waited);
        assert_eq!(limiter.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stops_waiting_holds_up_nobody() {
        let limiter = Limiter::new(1);
        let inside = limiter.try_enter().unwrap();
        let soon = Instant::now() + Duration::from_secs(60);
        let wait = |limiter: Arc<Limiter>| async move { limiter.wait(9, soon).await };
        let (gone, stays) =
            (tokio::spawn(wait(limiter.clone())), tokio::spawn(wait(limiter.clone())));
        tokio::task::yield_now().await;
        gone.abort();
        drop(inside);
        assert!(stays.await.unwrap().is_ok());
        limiter.set_limit(2);
        assert_eq!(limiter.limit(), 2);
    }
}
