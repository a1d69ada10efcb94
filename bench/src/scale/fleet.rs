//! All simulated routers, and what is known of where they are.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use weir_mesh::identity::TrustBundle;

use super::content::Contents;
use super::link::Bytes;
use super::router;

/// Where one router is.
#[derive(Clone, Copy, Default)]
pub struct Place {
    pub sequence: u64,
    pub revision: u32,
    pub instances: usize,
    /// When it first ran that revision.
    pub since: Option<Instant>,
    /// When it first ran anything on the stream that it has; none while it has none.
    pub back: Option<Instant>,
}

/// All of them.
pub struct Fleet {
    pub mesh: SocketAddr,
    pub bundle: TrustBundle,
    pub services: Vec<String>,
    /// Whether they say that they take deltas.
    pub deltas: bool,
    /// Over which they come the first time.
    pub ramp: Duration,
    pub bytes: Arc<Bytes>,
    pub contents: Contents,
    pub wholes: AtomicU64,
    pub delta_messages: AtomicU64,
    pub refusals: AtomicU64,
    pub told_to_wait: AtomicU64,
    /// The fewest instances that any of them saw.
    pub fewest: AtomicUsize,
    places: Mutex<Vec<Place>>,
    moved: Notify,
    flaps: Mutex<Vec<mpsc::Sender<()>>>,
}

impl Fleet {
    /// Starts `count` routers.
    pub fn start(
        mesh: SocketAddr,
        bundle: TrustBundle,
        services: Vec<String>,
        count: usize,
        deltas: bool,
        ramp: Duration,
    ) -> Arc<Self> {
        let fleet = Arc::new(Self {
            mesh,
            bundle,
            services,
            deltas,
            ramp,
            bytes: Arc::default(),
            contents: Contents::default(),
            wholes: AtomicU64::new(0),
            delta_messages: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            told_to_wait: AtomicU64::new(0),
            fewest: AtomicUsize::new(usize::MAX),
            places: Mutex::new(vec![Place::default(); count]),
            moved: Notify::new(),
            flaps: Mutex::default(),
        });
        for index in 0..count {
            let (flap, flaps) = mpsc::channel(1);
            fleet.flaps.lock().unwrap_or_else(PoisonError::into_inner).push(flap);
            tokio::spawn(router::live(fleet.clone(), index, flaps));
        }
        fleet
    }

    /// Where each is.
    pub fn places(&self) -> Vec<Place> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes where one is.
    pub fn place(&self, index: usize, change: impl FnOnce(&mut Place)) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(index) {
            change(place);
        }
        drop(places);
        self.moved.notify_one();
    }

    /// One router's instance goes and comes back at once; false while it does so already.
    pub fn flap(&self, index: usize) -> bool {
        let flaps = self.flaps.lock().unwrap_or_else(PoisonError::into_inner);
        flaps.get(index).is_some_and(|flap| flap.try_send(()).is_ok())
    }

    /// Waits until every router is as wanted, and gives where they are then.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Place) -> bool,
    ) -> Result<Vec<Place>, String> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let moved = self.moved.notified();
            let places = self.places();
            let missing = places.iter().filter(|place| !wanted(place)).count();
            if missing == 0 {
                return Ok(places);
            }
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                let there = places.iter().filter(|place| place.back.is_some()).count();
                let sequences = places.iter().map(|place| place.sequence);
                let (oldest, newest) = (sequences.clone().min(), sequences.max());
                return Err(format!(
                    "{what}: {missing} routers are not after {limit:?}; {there} have an answer, of \
                     snapshots {oldest:?} to {newest:?}"
                ));
            }
        }
    }

    /// Whole snapshots and deltas that came, and messages that were refused.
    pub fn counts(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.wholes), read(&self.delta_messages), read(&self.refusals))
    }
}
