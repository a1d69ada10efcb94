//! Keys of issuers: fetched, kept, and fetched again before they are needed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use weir_mesh::model::ServiceName;
use weir_mesh::policy::authentication::Keys;
use weir_mesh::token::KeySet;
use weir_proto::weir::auth::v1::{GetJwksRequest, Jwks};

use super::rpc;
use crate::worker::Worker;

/// What is asked of a service of the mesh.
pub(super) const PATH: &str = "/weir.auth.v1.AuthService/GetJwks";

/// However many unknown keys are asked for, no more than one fetch in this.
const BETWEEN: Duration = Duration::from_secs(1);
/// For one fetch.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bounds of what `Cache-Control` says (RFC 9111 §5.2.2.1).
const MIN_LIFE: Duration = Duration::from_secs(60);
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Where it says nothing: fetched again after this,
const REFRESH: Duration = Duration::from_secs(300);
/// and good for this, while the issuer is away.
const LIFE: Duration = Duration::from_secs(3600);

struct Known {
    keys: Arc<KeySet>,
    refresh_at: Instant,
    good_until: Instant,
}

/// Keys of one place, for all workers of the router.
pub struct Cached {
    from: Keys,
    known: ArcSwapOption<Known>,
    /// Held for the time of a fetch: those who need its result wait for it.
    last: Mutex<Option<Instant>>,
}

impl Cached {
    /// Nothing is fetched before it is asked for.
    pub(super) fn new(from: Keys) -> Self {
        Self { from, known: ArcSwapOption::empty(), last: Mutex::new(None) }
    }

    /// The keys; none when there are none that are still good.
    pub(super) async fn get(self: &Arc<Self>, worker: &Rc<Worker>) -> Option<Arc<KeySet>> {
        let now = Instant::now();
        if let Some(known) = self.good(now) {
            if now >= known.refresh_at && self.last.try_lock().is_ok() {
                // Nobody waits: those that are there are good.
                drop(self.spawn(worker, now));
            }
            return Some(known.keys.clone());
        }
        self.again(worker).await
    }

    /// The keys, after a fetch, unless there was one just now.
    pub(super) async fn again(self: &Arc<Self>, worker: &Rc<Worker>) -> Option<Arc<KeySet>> {
        let now = Instant::now();
        // A client that goes away must not take the answer from the others.
        let _ = self.spawn(worker, now).await;
        self.good(Instant::now()).map(|known| known.keys.clone())
    }

    fn good(&self, now: Instant) -> Option<Arc<Known>> {
        self.known.load_full().filter(|known| now < known.good_until)
    }

    fn spawn(self: &Arc<Self>, worker: &Rc<Worker>, asked: Instant) -> tokio::task::JoinHandle<()> {
        let (cached, worker) = (self.clone(), worker.clone());
        tokio::task::spawn_local(async move {
            let fetch = async || fetch(&worker, &cached.from).await;
            let fetched = cached.refresh(asked, fetch).await;
            let labels = |result| [("result", result)];
            let help = "Fetches of an issuer's keys.";
            let registry = worker.shared.metrics.registry();
            let count = |result| {
                registry.counter("weir.router.jwks.fetches", help, "", &labels(result)).inc();
            };
            match fetched {
                None => {}
                Some(Ok(())) => count("ok"),
                Some(Err(error)) => {
                    count("error");
                    tracing::warn!(%error, "keys cannot be fetched; those that are known go on");
                }
            }
        })
    }

    /// Fetches, unless somebody has since `asked`, or just now.
    async fn refresh(
        &self,
        asked: Instant,
        fetch: impl AsyncFnOnce() -> Result<(KeySet, HeaderMap), String>,
    ) -> Option<Result<(), String>> {
        let mut last = self.last.lock().await;
        if let Some(at) = *last
            && (at >= asked || at.elapsed() < BETWEEN)
        {
            return None;
        }
        let at = Instant::now();
        let fetched = timeout(PATIENCE, fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
        *last = Some(at);
        let (keys, headers) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return Some(Err(error)),
        };
        let (refresh, life) = lifetime(&headers);
        let known = Known { keys: Arc::new(keys), refresh_at: at + refresh, good_until: at + life };
        self.known.store(Some(Arc::new(known)));
        Some(Ok(()))
    }
}

/// When to fetch again, and until when keys are good.
fn lifetime(headers: &HeaderMap) -> (Duration, Duration) {
    let directives = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let max_age = directives.into_iter().find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        let seconds = value.trim_matches('"').parse().ok()?;
        name.eq_ignore_ascii_case("max-age").then_some(Duration::from_secs(seconds))
    });
    match max_age {
        None => (REFRESH, LIFE),
        Some(age) => {
            let life = age.clamp(MIN_LIFE, MAX_LIFE);
            (life * 3 / 4, life)
        }
    }
}

async fn fetch(worker: &Rc<Worker>, from: &Keys) -> Result<(KeySet, HeaderMap), String> {
    let (headers, document) = match from {
        Keys::Inline(keys) => return Ok(((**keys).clone(), HeaderMap::new())),
        Keys::Service(name) => (HeaderMap::new(), of_service(worker, name).await?),
        Keys::Uri(uri) => of_uri(worker, uri).await?,
    };
    let keys = KeySet::parse(&document).map_err(|error| error.to_string())?;
    Ok((keys, headers))
}

/// `GetJwks` of our own auth service, as the document that it stands for.
async fn of_service(worker: &Rc<Worker>, name: &ServiceName) -> Result<Bytes, String> {
    let limits = (PATIENCE, KeySet::MAX_BYTES);
    let path = PATH;
    let answer: Jwks = rpc::unary(worker, name, path, &GetJwksRequest {}, limits).await?;
    let keys = answer.keys.iter().map(|key| {
        let mut json = json!({
            "kty": key.kty, "crv": key.crv, "x": key.x, "y": key.y, "kid": key.kid,
            "alg": key.alg, "use": key.r#use,
        });
        if let Some(json) = json.as_object_mut() {
            json.retain(|_, value| value != "");
        }
        json
    });
    Ok(json!({ "keys": keys.collect::<Vec<_>>() }).to_string().into())
}

async fn of_uri(worker: &Rc<Worker>, uri: &Uri) -> Result<(HeaderMap, Bytes), String> {
    let host = uri.host().ok_or("the URL has no host")?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let table = worker.table();
    let service = table.as_ref().and_then(|table| table.services.get_key_value(host));
    let (head, document) = match service {
        Some((name, _)) => rpc::get(worker, name, path, KeySet::MAX_BYTES).await?,
        None => from_outside(uri, host, path).await?,
    };
    if head.status() != StatusCode::OK {
        return Err(format!("{host} answered HTTP {}", head.status().as_u16()));
    }
    Ok((head.headers().clone(), document))
}

async fn from_outside(
    uri: &Uri,
    host: &str,
    path: &str,
) -> Result<(http::Response<()>, Bytes), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot ask {host}: {error}");
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, uri.port_u16().unwrap_or(80))).await;
    let stream = TokioIo::new(stream.map_err(|error| failed(&error))?);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| failed(&error))?;
    let driving = tokio::task::spawn_local(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().map_err(|_| "the URL's path is none".to_owned())?;
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let authority = HeaderValue::from_str(authority).map_err(|error| failed(&error))?;
    request.headers_mut().insert(header::HOST, authority);
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let document = rpc::document(response, KeySet::MAX_BYTES).await;
    driving.abort();
    document
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const KEY: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"KID",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn keys(kid: &str) -> KeySet {
        KeySet::parse(KEY.replace("KID", kid).as_bytes()).unwrap()
    }

    fn cached() -> Cached {
        Cached::new(Keys::Service("auth".parse().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_serves_what_is_known_until_its_life_ends() {
        let cached = cached();
        let headers = HeaderMap::from_iter([(
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=120"),
        )]);
        let fetched = cached.refresh(Instant::now(), async || Ok((keys("a"), headers))).await;
        assert_eq!(fetched, Some(Ok(())));
        let mut now = Instant::now();
        for _ in 0..11 {
            tokio::time::advance(Duration::from_secs(10)).await;
            now = Instant::now();
            let failed = cached.refresh(now, async || Err("away".to_owned())).await;
            assert_eq!(failed, Some(Err("away".to_owned())));
            assert_eq!(*cached.good(now).unwrap().keys, keys("a"));
        }
        assert!(now >= cached.good(now).unwrap().refresh_at, "it was due since 90 s");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(cached.good(Instant::now()).is_none(), "and over at 120 s");
    }

    #[tokio::test(start_paused = true)]
    async fn however_often_keys_are_asked_for_one_fetch_a_second_is_made() {
        let cached = cached();
        let fetches = Cell::new(0);
        for _ in 0..1000 {
            cached
                .refresh(Instant::now(), async || {
                    fetches.set(fetches.get() + 1);
                    Ok((keys("a"), HeaderMap::new()))
                })
                .await;
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert!((9..=11).contains(&fetches.get()), "{}", fetches.get());
    }

    #[test]
    fn a_life_is_within_bounds() {
        let of = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            lifetime(&HeaderMap::from_iter([(header::CACHE_CONTROL, value)])).1
        };
        assert_eq!(of("max-age=0"), MIN_LIFE);
        assert_eq!(of("no-cache"), LIFE);
        assert_eq!(of("MAX-AGE=\"7200\""), Duration::from_secs(7200));
        assert_eq!(of("private, max-age=99999999"), MAX_LIFE);
    }
}
