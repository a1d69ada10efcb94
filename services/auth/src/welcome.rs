//! Delivers welcomes: at once when it can, else again and again.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use weir_mesh::server::Call;

use crate::account::Millis;
use crate::peers::Peers;
use crate::store::{Store, StoreError, Welcoming};

/// How long a welcome that is due may lie there.
const POLL: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(300);
const PURGE_EVERY: Duration = Duration::from_secs(3600);

/// Clones deliver from the same outbox.
#[derive(Clone)]
pub struct Welcome {
    store: Store,
    peers: Peers,
}

impl Welcome {
    /// Begins to deliver in the background, until `stopping` completes.
    pub fn start(
        store: Store,
        peers: Peers,
        stopping: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let welcome = Self { store, peers };
        let background = welcome.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopping => {}
                () = background.run() => {}
            }
        });
        welcome
    }

    /// Delivers one that was just added, as part of the trace of the call that
    /// added it, but without that call's waiting for it.
    pub fn deliver_soon(&self, welcoming: Welcoming) {
        let welcome = self.clone();
        let delivery = async move {
            if let Err(error) = welcome.deliver(welcoming).await {
                tracing::warn!(%error, "a welcome stays in the outbox");
            }
        };
        match Call::current() {
            Some(call) => tokio::spawn(call.detached().scope(delivery)),
            None => tokio::spawn(delivery),
        };
    }

    async fn run(self) {
        let mut purge_at = Instant::now();
        loop {
            match self.step(&mut purge_at).await {
                // There may be more.
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(POLL).await,
                Err(error) => {
                    tracing::warn!(%error, "the outbox is not delivered right now");
                    tokio::time::sleep(POLL * 5).await;
                }
            }
        }
    }

    /// Says whether it found something to do.
    async fn step(&self, purge_at: &mut Instant) -> Result<bool, StoreError> {
        if *purge_at <= Instant::now() {
            *purge_at = Instant::now() + PURGE_EVERY;
            self.store.purge(Millis::now()).await?;
        }
        let Some(welcoming) = self.store.lease_welcome(Millis::now()).await? else {
            return Ok(false);
        };
        self.deliver(welcoming).await?;
        Ok(true)
    }

    async fn deliver(&self, welcoming: Welcoming) -> Result<(), StoreError> {
        let key = &welcoming.idempotency_key;
        match self.peers.welcome(&welcoming).await {
            Ok(()) => self.store.welcomed(key).await,
            Err(status) => {
                let code = status.code();
                tracing::warn!(%key, ?code, attempts = welcoming.attempts, "a welcome is tried again");
                let due = Millis::now() + backoff(welcoming.attempts);
                self.store.welcome_later(key, due).await
            }
        }
    }
}

/// Doubles, up to five minutes, and up to a half more: what failed together
/// must not come back together.
fn backoff(attempts: u32) -> Duration {
    let base = FIRST_RETRY.saturating_mul(1 << attempts.min(20)).min(LONGEST_RETRY);
    base.mul_f64(1.0 + fastrand::f64() / 2.0)
}
