//! Tells those who watch that something has come, whichever process took it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::store::{Store, StoreError};

/// How soon notifications of other processes are seen.
const LOOK: Duration = Duration::from_millis(200);

/// The newest notification's sequence, as this process knows it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Newest(Arc<watch::Sender<i64>>);

impl Newest {
    /// Begins with what there is now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn new(store: &Store) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(watch::Sender::new(store.newest().await?))))
    }

    /// Notes that there is this one.
    pub fn note(&self, sequence: i64) {
        self.0.send_if_modified(|newest| {
            let newer = sequence > *newest;
            *newest = sequence.max(*newest);
            newer
        });
    }

    /// Changes with each notification.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.0.subscribe()
    }

    /// Looks for other processes' notifications while anybody watches, until
    /// `stop` completes.
    pub async fn run(self, store: Store, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(LOOK) => (),
            }
            if self.0.receiver_count() == 0 {
                continue;
            }
            match store.newest().await {
                Ok(newest) => self.note(newest),
                Err(error) => tracing::error!(%error, "new notifications cannot be looked for"),
            }
        }
    }
}
