//! Sends the webhooks that wait in the queue. Several workers, also of several
//! processes, may share one queue.

mod send;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::store::{Job, Store, StoreError};
use crate::webhook::Secret;
use send::Failure;

/// How often to look for jobs that another process may have left behind.
const LOOK: Duration = Duration::from_millis(500);
/// How long to wait after the database has failed.
const REST: Duration = Duration::from_secs(1);
/// By how much a lease outlives the attempt that it is for.
const MARGIN: Duration = Duration::from_secs(5);

/// How webhooks are sent.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Attempts before a webhook is given up; at least 1.
    pub attempts: u32,
    /// The longest pause after the first attempt; it doubles with each.
    pub backoff: Duration,
    /// The longest pause of all.
    pub max_backoff: Duration,
    /// How long one attempt may take, from the name's lookup to the answer.
    pub timeout: Duration,
    /// Attempts at once.
    pub concurrency: usize,
    /// Whether loopback, private and other special addresses may be sent to.
    pub private: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts: 8,
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(300),
            timeout: Duration::from_secs(10),
            concurrency: 16,
            private: false,
        }
    }
}

impl Policy {
    /// Pause after the `attempt`th attempt: anything up to twice the limit of
    /// the one before ("full jitter"), so that receivers which have failed
    /// together are not called together.
    fn pause(&self, attempt: u32) -> Duration {
        self.longest_pause(attempt).mul_f64(fastrand::f64())
    }

    fn longest_pause(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.backoff.saturating_mul(1 << doublings).min(self.max_backoff)
    }
}

/// Takes jobs and sends them. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    store: Store,
    secret: Secret,
    policy: Arc<Policy>,
    wake: Arc<Notify>,
}

impl Worker {
    /// A worker that signs with `secret`.
    #[must_use]
    pub fn new(store: Store, secret: Secret, policy: Policy) -> Self {
        Self { store, secret, policy: Arc::new(policy), wake: Arc::default() }
    }

    /// Tells the worker that there may be something to do.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Works until `stop` completes. What was begun is then finished.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut running = JoinSet::new();
        loop {
            let pause = self.begin(&mut running).await.unwrap_or_else(|error| {
                tracing::error!(%error, "webhooks cannot be taken from the queue");
                REST
            });
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_) = running.join_next() => (),
                () = self.wake.notified() => (),
                () = tokio::time::sleep(pause) => (),
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Begins as many jobs as there is room for; gives the time to look again.
    async fn begin(&self, running: &mut JoinSet<()>) -> Result<Duration, StoreError> {
        let room = self.policy.concurrency.saturating_sub(running.len());
        // Looking costs a read; only taking costs a write.
        let due = self.store.next_due().await?;
        if room == 0 || due != Some(Duration::ZERO) {
            return Ok(due.filter(|_| room > 0).unwrap_or(LOOK).min(LOOK));
        }
        for job in self.store.take(room, self.policy.timeout + MARGIN).await? {
            let worker = self.clone();
            running.spawn(async move { worker.attempt(&job).await });
        }
        Ok(if running.len() < self.policy.concurrency { Duration::ZERO } else { LOOK })
    }

    async fn attempt(&self, job: &Job) {
        let id = job.notification.id;
        if let Err(error) = self.try_attempt(job).await {
            // It comes back when its lease ends.
            tracing::error!(%error, notification.id = %id, "the outcome of a webhook cannot be stored");
        }
    }

    async fn try_attempt(&self, job: &Job) -> Result<bool, StoreError> {
        let attempt = job.attempt;
        if attempt > self.policy.attempts {
            // The worker that made the last attempt died before it could say so.
            return self.store.bury(job, attempt - 1, None).await;
        }
        let sent = tokio::time::timeout(
            self.policy.timeout,
            send::send(&job.notification, &self.secret, self.policy.private),
        );
        let failure = match sent.await {
            Ok(Ok(())) => return self.store.done(job).await,
            Ok(Err(failure)) => failure,
            Err(_) => Failure::new(format!("no answer within {:?}", self.policy.timeout)),
        };
        let error = failure.error.as_str();
        tracing::warn!(notification.id = %job.notification.id, attempt, error, "a webhook failed");
        if failure.permanent || attempt == self.policy.attempts {
            return self.store.bury(job, attempt, Some(error)).await;
        }
        let asked = failure.retry_after.unwrap_or_default().min(self.policy.max_backoff);
        self.store.retry(job, self.policy.pause(attempt).max(asked), error).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_grow_up_to_their_limit(attempt in 1u32..1000) {
            let policy = Policy::default();
            let longest = policy.longest_pause(attempt);
            prop_assert!(longest >= policy.backoff && longest <= policy.max_backoff);
            prop_assert!(policy.longest_pause(attempt + 1) >= longest);
            prop_assert!(policy.pause(attempt) <= longest);
        }
    }
}
