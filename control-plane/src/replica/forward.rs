//! Writes go to the leader, whichever control plane was asked.
//!
//! | what happens to the call | what the caller is told |
//! | --- | --- |
//! | nobody leads for [`PATIENCE`] | UNAVAILABLE; nothing has happened |
//! | it could not be sent, or who got it did not lead | nothing: it is sent to who leads next |
//! | it was sent and the leader is gone, with an idempotency key | nothing: it is repeated |
//! | the same without a key | UNAVAILABLE; it may have happened |

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status};
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::peer_service_client::PeerServiceClient;

use super::door::NOT_LEADING;
use super::{Lead, Peer, caller, link, methods};
use crate::access::{self, Caller};
use crate::api::{IDEMPOTENCY_KEY, MAX_MESSAGE};
use crate::control::{Author, Control};
use crate::store::StoreError;

/// How long a write waits for somebody to lead, in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts, when nothing else tells that it is time.
const RETRY: Duration = Duration::from_millis(50);
/// How long a refusal is tried to be written: whoever is refused waits for it.
const NOTE: Duration = Duration::from_secs(2);
/// Length of a gRPC frame's head.
const FRAME: usize = 5;
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Answers a gRPC request: here, or by the leader when it is a write and another
/// control plane leads.
pub async fn call(
    control: &Arc<Control>,
    routes: &Routes,
    request: Request<Body>,
) -> Response<Body> {
    if methods::is_of_leader(request.uri().path()) {
        return of_leader(control, routes, request).await;
    }
    if !methods::writes(request.uri().path()) {
        return access::call(control, routes, request).await;
    }
    match Write::read(request).await {
        Ok(write) => write.answer(control, routes).await,
        Err(status) => status.into_http(),
    }
}

/// Has the leader tell what it alone knows all of. While it is not reached, this one
/// tells what is stored.
async fn of_leader(
    control: &Arc<Control>,
    routes: &Routes,
    request: Request<Body>,
) -> Response<Body> {
    let lead = control.replica.lead.borrow().clone();
    let Lead::Other(peer) = lead else { return access::call(control, routes, request).await };
    let asked = match Write::read(request).await {
        Ok(asked) => asked,
        Err(status) => return status.into_http(),
    };
    if let Some(request) = asked.remote()
        && let Ok(channel) = link::connect(control, peer.address).await
        && let Ok(answer) = through(channel, request).await
        && !answer.headers().contains_key(NOT_LEADING)
    {
        return answer;
    }
    access::call(control, routes, asked.local()).await
}

/// A request that can be sent more than once.
struct Write {
    path: String,
    headers: HeaderMap,
    extensions: http::Extensions,
    /// The message in its frame.
    body: Bytes,
    /// It may be repeated: it has an idempotency key.
    repeatable: bool,
}

/// Has the leader write a refusal into the history.
///
/// # Errors
/// When nobody led for long enough, or the leader could not.
pub async fn note(control: &Control, author: &Author) -> Result<(), StoreError> {
    let mut lead = control.replica.lead.subscribe();
    let attempts = async {
        loop {
            let now = lead.borrow_and_update().clone();
            if let Lead::Other(peer) = now
                && let Ok(channel) = link::connect(control, peer.address).await
            {
                let Author { actor, reason } = author.clone();
                let request = pb::NoteRequest { actor, reason };
                match PeerServiceClient::new(channel).note(request).await {
                    Ok(_) => return Ok(()),
                    Err(status) if status.metadata().contains_key(NOT_LEADING) => {}
                    Err(status) => return Err(StoreError::Task(status.message().to_owned())),
                }
            }
            // One that leads itself by now is told so: the next refusal is its own.
            if control.replica.leads() {
                return Err(StoreError::NotLeading);
            }
            let _ = tokio::time::timeout(RETRY, lead.changed()).await;
        }
    };
    let noted = tokio::time::timeout(NOTE, attempts).await;
    noted.unwrap_or(Err(StoreError::NotLeading))
}

/// How an attempt ended.
enum Sent {
    Answered(Response<Body>),
    /// Nothing has happened.
    Nothing(String),
    /// Something may have happened.
    Unclear(String),
}

impl Write {
    async fn read(request: Request<Body>) -> Result<Self, Status> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, MAX_MESSAGE + FRAME).collect().await;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Status::out_of_range(format!("the message is above {MAX_MESSAGE} bytes"))
            } else {
                Status::cancelled("the request did not come whole")
            }
        })?;
        let body = body.to_bytes();
        let path = parts.uri.path().to_owned();
        let message = body.get(FRAME..).unwrap_or_default();
        let repeatable = !methods::idempotency_key(&path, message).is_empty()
            || parts.headers.get(IDEMPOTENCY_KEY).is_some_and(|key| !key.is_empty());
        Ok(Self { path, headers: parts.headers, extensions: parts.extensions, body, repeatable })
    }

    /// Tries until somebody who leads has answered.
    async fn answer(self, control: &Arc<Control>, routes: &Routes) -> Response<Body> {
        let deadline = Instant::now() + PATIENCE;
        let mut lead = control.replica.lead.subscribe();
        let mut unclear = None;
        loop {
            let now = lead.borrow_and_update().clone();
            let sent = match now {
                Lead::Own => collected(access::call(control, routes, self.local()).await).await,
                Lead::Other(peer) => self.send(control, &peer).await,
                Lead::Nobody => Sent::Nothing("no control plane leads now".to_owned()),
            };
            let why = match sent {
                Sent::Answered(answer) => return answer,
                Sent::Nothing(why) => why,
                Sent::Unclear(why) if self.repeatable => {
                    unclear = Some(why.clone());
                    why
                }
                Sent::Unclear(why) => return gone(&why).into_http(),
            };
            tracing::debug!(path = self.path, why, "a write waits for a leader");
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || control.shutdown.is_requested() {
                return unclear.map_or_else(|| nobody(&why), |why| gone(&why)).into_http();
            }
            // A leader that is gone is known before who follows it: then that is awaited.
            let _ = tokio::time::timeout(left.min(RETRY), lead.changed()).await;
        }
    }

    /// For services in this process.
    fn local(&self) -> Request<Body> {
        let mut request = Request::new(Body::new(Full::new(self.body.clone())));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = Version::HTTP_2;
        if let Ok(uri) = self.path.parse() {
            *request.uri_mut() = uri;
        }
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        request
    }

    /// For another control plane: of the headers what gRPC needs, the idempotency key,
    /// and who calls.
    fn remote(&self) -> Option<Request<Body>> {
        let mut request = Request::new(Body::new(Full::new(self.body.clone())));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = format!("http://control-plane{}", self.path).parse().ok()?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        for name in [TIMEOUT, HeaderName::from_static(IDEMPOTENCY_KEY)] {
            if let Some(value) = self.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let caller = self.extensions.get::<Caller>().cloned().unwrap_or_default();
        headers.insert(caller::CALLER, caller::write(&caller)?);
        Some(request)
    }

    async fn send(&self, control: &Control, peer: &Peer) -> Sent {
        let Some(request) = self.remote() else {
            let why = "the caller's name cannot be passed on; use plain characters";
            return Sent::Answered(Status::invalid_argument(why).into_http());
        };
        let channel = match link::connect(control, peer.address).await {
            Ok(channel) => channel,
            Err(error) => return Sent::Nothing(format!("{}: {error}", peer.name)),
        };
        match through(channel, request).await {
            Ok(answer) => collected(answer).await,
            Err(error) => Sent::Unclear(format!("{}: {error}", peer.name)),
        }
    }
}

async fn through(
    mut channel: Channel,
    request: Request<Body>,
) -> Result<Response<Body>, tonic::transport::Error> {
    use tower_service::Service as _;
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
    channel.call(request).await
}

/// Waits for the whole answer: one that breaks off says nothing.
async fn collected(answer: Response<Body>) -> Sent {
    let (parts, body) = answer.into_parts();
    let body = match body.collect().await {
        Ok(body) => body,
        Err(error) => return Sent::Unclear(error.to_string()),
    };
    let trailers = body.trailers();
    let refused = |headers: &HeaderMap| headers.contains_key(NOT_LEADING);
    if refused(&parts.headers) || trailers.is_some_and(refused) {
        return Sent::Nothing("who was asked does not lead any more".to_owned());
    }
    let status = |headers: &HeaderMap| headers.contains_key("grpc-status");
    if !status(&parts.headers) && !trailers.is_some_and(status) {
        return Sent::Unclear("the answer was cut off".to_owned());
    }
    let body = match trailers.cloned() {
        Some(trailers) => {
            let data = Full::new(body.to_bytes()).map_err(|never| match never {});
            Body::new(data.with_trailers(async move { Some(Ok::<_, Status>(trailers)) }))
        }
        None => Body::new(Full::new(body.to_bytes())),
    };
    Sent::Answered(Response::from_parts(parts, body))
}

fn nobody(why: &str) -> Status {
    let why = format!("{why}; nothing was changed, try again in a few seconds");
    hinted(Status::new(Code::Unavailable, why))
}

fn gone(why: &str) -> Status {
    let why = format!(
        "the leader was lost before it answered ({why}); the change may have been made: look at \
         the history, or send an idempotency key to have it repeated safely"
    );
    hinted(Status::new(Code::Unavailable, why))
}

/// Says when to try again (gRPC A6, `grpc-retry-pushback-ms`).
fn hinted(mut status: Status) -> Status {
    let after = tonic::metadata::MetadataValue::from_static("1000");
    status.metadata_mut().insert("grpc-retry-pushback-ms", after);
    status
}
