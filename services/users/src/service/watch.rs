//! One user's profile as a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tonic::Status;
use weir_mesh::server::Call;
use weir_proto::weir::users::v1::WatchMeResponse;

use super::wire;
use crate::profile::Profile;
use crate::store::Store;

/// Streams that one process keeps open; they must leave room for other calls.
const MOST: usize = 512;

/// What `WatchMe` answers with.
pub type ProfileStream = Pin<Box<dyn Stream<Item = Result<WatchMeResponse, Status>> + Send>>;

/// Room for watchers.
pub struct Places(Arc<Semaphore>);

impl Places {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }

    /// RESOURCE_EXHAUSTED when there is none left.
    pub fn take(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("this instance has as many watchers as it can: try again")
        })
    }
}

/// A watcher between two messages.
pub struct Watch {
    store: Store,
    changes: watch::Receiver<u64>,
    sent: Profile,
    /// The first message is what was there at the start.
    started: bool,
    /// An access token opens the stream only for as long as it is valid.
    expires: Instant,
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    with_avatar: bool,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    pub fn new(
        store: Store,
        changes: watch::Receiver<u64>,
        first: Profile,
        expires: u64,
        place: OwnedSemaphorePermit,
        with_avatar: bool,
    ) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_secs(expires).saturating_sub(now);
        let draining: Pin<Box<dyn Future<Output = ()> + Send>> = match Call::current() {
            Some(call) => Box::pin(call.draining()),
            None => Box::pin(std::future::pending()),
        };
        Self {
            store,
            changes,
            sent: first,
            started: false,
            expires: Instant::now() + left,
            draining,
            with_avatar,
            _place: place,
        }
    }

    /// After an error the stream ends.
    pub fn stream(self) -> ProfileStream {
        Box::pin(unfold(Some(self), async |watch| {
            let mut watch = watch?;
            match watch.next().await {
                Ok(profile) => {
                    let profile = Some(wire::profile(profile, watch.with_avatar));
                    Some((Ok(WatchMeResponse { profile }), Some(watch)))
                }
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    async fn next(&mut self) -> Result<Profile, Status> {
        if !std::mem::replace(&mut self.started, true) {
            return Ok(self.sent.clone());
        }
        loop {
            tokio::select! {
                () = &mut self.draining => {
                    return Err(Status::unavailable("this instance is stopping: watch again"));
                }
                () = tokio::time::sleep_until(self.expires) => {
                    return Err(Status::unauthenticated("the access token has expired: refresh it and watch again"));
                }
                changed = self.changes.changed() => {
                    changed.map_err(|_| Status::unavailable("this instance is stopping: watch again"))?;
                }
            }
            let now = self.store.get(&self.sent.id).await?;
            if now != self.sent {
                self.sent = now;
                return Ok(self.sent.clone());
            }
        }
    }
}
