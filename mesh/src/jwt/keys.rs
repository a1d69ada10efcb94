//! The keys in use, and when to fetch them again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use tokio::sync::Mutex;
use tokio::time::Instant;
use weir_proto::weir::auth::v1::Jwks;

use super::Fetch;
use crate::server::Call;

/// Keys older than this are fetched again, in the background.
const STALE: Duration = Duration::from_secs(300);
/// However many unknown keys are asked for, no more than one fetch in this.
const BETWEEN: Duration = Duration::from_secs(1);
/// How long one fetch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no key by that id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The auth service knows no such key.
    Unknown,
    /// The auth service could not be asked.
    Unreachable,
}

struct Known {
    keys: HashMap<String, DecodingKey>,
    fetched: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Attempt {
    at: Instant,
    worked: bool,
}

/// A cache that outlives the auth service's outages.
#[derive(Clone)]
pub(super) struct Keys {
    known: Arc<ArcSwap<Known>>,
    // Held for the time of a fetch: those who need its result wait for it.
    last: Arc<Mutex<Option<Attempt>>>,
    fetch: Fetch,
}

impl Keys {
    pub(super) fn new(fetch: Fetch) -> Self {
        let none = Known { keys: HashMap::new(), fetched: None };
        Self { known: Arc::new(ArcSwap::from_pointee(none)), last: Arc::default(), fetch }
    }

    pub(super) async fn get(&self, kid: &str) -> Result<DecodingKey, NoKey> {
        if let Some(key) = self.cached(kid) {
            return Ok(key);
        }
        let asked = Instant::now();
        let worked = self.spawn_refresh(asked).await.unwrap_or(false);
        match self.cached(kid) {
            Some(key) => Ok(key),
            None if worked => Err(NoKey::Unknown),
            None => Err(NoKey::Unreachable),
        }
    }

    fn cached(&self, kid: &str) -> Option<DecodingKey> {
        let known = self.known.load();
        let key = known.keys.get(kid)?.clone();
        if known.fetched.is_none_or(|at| at.elapsed() > STALE) && self.last.try_lock().is_ok() {
            drop(self.spawn_refresh(Instant::now()));
        }
        Some(key)
    }

    /// Refreshes in a task of its own: a caller that gives up must neither lose
    /// the answer for the others nor have its deadline decide for them.
    fn spawn_refresh(&self, asked: Instant) -> tokio::task::JoinHandle<bool> {
        let keys = self.clone();
        let refresh = async move { keys.refresh(asked).await };
        match Call::current() {
            Some(call) => tokio::spawn(call.detached().scope(refresh)),
            None => tokio::spawn(refresh),
        }
    }

    /// Whether what is known is as new as `asked`, or as new as may be.
    async fn refresh(&self, asked: Instant) -> bool {
        let mut last = self.last.lock().await;
        if let Some(Attempt { at, worked }) = *last
            && (at >= asked || at.elapsed() < BETWEEN)
        {
            return worked;
        }
        let at = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, (self.fetch)()).await;
        let worked = match answer {
            Ok(Ok(jwks)) => {
                let keys = decode(&jwks);
                self.known.store(Arc::new(Known { keys, fetched: Some(at) }));
                true
            }
            Ok(Err(_)) | Err(_) => false,
        };
        *last = Some(Attempt { at, worked });
        worked
    }
}

/// Keys of other kinds are left out: ES256 is all that is ever accepted.
fn decode(jwks: &Jwks) -> HashMap<String, DecodingKey> {
    let usable = jwks.keys.iter().filter(|key| {
        key.kty == "EC" && key.crv == "P-256" && key.alg == "ES256" && !key.kid.is_empty()
    });
    usable
        .filter_map(|key| {
            let decoded = DecodingKey::from_ec_components(&key.x, &key.y).ok()?;
            Some((key.kid.clone(), decoded))
        })
        .collect()
}
