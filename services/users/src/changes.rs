//! Tells watchers that something may have changed, whichever process did it.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use crate::store::Store;

/// How long another process's change may go unseen.
const POLL: Duration = Duration::from_millis(200);
/// After the database failed.
const RETRY: Duration = Duration::from_secs(1);

/// A counter that goes up with each commit to the database.
#[derive(Clone)]
pub struct Changes {
    counter: watch::Sender<u64>,
}

impl Changes {
    /// Begins to look for changes, until `stopping` completes. While nobody
    /// watches, nobody looks.
    pub fn start(store: &Store, stopping: impl Future<Output = ()> + Send + 'static) -> Self {
        let counter = watch::Sender::new(0);
        let poll = poll(store.clone(), counter.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stopping => {}
                () = poll => {}
            }
        });
        Self { counter }
    }

    /// Sees every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.counter.subscribe()
    }

    /// Says that this process has just changed something: its own watchers need
    /// not wait for the poll.
    pub fn announce(&self) {
        self.counter.send_modify(|n| *n += 1);
    }
}

async fn poll(store: Store, counter: watch::Sender<u64>) {
    loop {
        if let Err(error) = follow(&store, &counter).await {
            tracing::warn!(%error, "cannot look for changes; watchers see them later");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(
    store: &Store,
    counter: &watch::Sender<u64>,
) -> Result<(), crate::store::StoreError> {
    let mut connection = store.dedicated().await?;
    let mut seen = None;
    loop {
        if counter.receiver_count() > 0 {
            let version = Store::data_version(&mut connection).await?;
            if seen.replace(version) != Some(version) {
                counter.send_modify(|n| *n += 1);
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
