//! A request for the application beside us: another router sent it by mTLS, or to a
//! pod anybody in plaintext.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Method, Request, Response, Version, request};
use hyper::body::Incoming;
use tokio::time::timeout_at;
use weir_mesh::model::Protocol;

use super::answer::{self, DownBody};
use super::body::UpBody;
use super::call::Call;
use super::{canonical, headers, limit, target};
use crate::auth;
use crate::connection::Connected;
use crate::error::RouterError;
use crate::limit::quota::Quota;
use crate::table::Table;
use crate::upstream::{Failure, Pool, Sent};
use crate::worker::Worker;

/// The kubelet's gRPC probe (grpc.io, "Health Checking Protocol").
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Answers one request.
///
/// # Errors
/// REFUSED_STREAM (RFC 9113 §8.7) when the application got nothing of it: the
/// router that sent it may try another instance.
pub async fn handle(
    worker: Rc<Worker>,
    connected: Rc<Connected>,
    request: Request<Incoming>,
) -> Result<Response<DownBody>, h2::Error> {
    let mut call = Call::begin(&worker, &connected, &request);
    match steps(&worker, &connected, request, &mut call).await {
        Ok(answer) => Ok(answer::finish(answer, call)),
        Err(Refusal::Answer(error)) => {
            Ok(answer::finish(answer::of_error(&error, &mut call), call))
        }
        Err(Refusal::Reset(error)) => {
            call.failed(&error);
            call.end(true);
            Err(h2::Reason::REFUSED_STREAM.into())
        }
    }
}

/// Answers one request that came to a pod in plaintext. Never fails: whoever sent it
/// knows of no other instance.
pub async fn handle_plain(
    worker: Rc<Worker>,
    connected: Rc<Connected>,
    request: Request<Incoming>,
) -> Result<Response<DownBody>, Infallible> {
    let mut call = Call::begin(&worker, &connected, &request);
    let answer = match steps(&worker, &connected, request, &mut call).await {
        Ok(mut answer) => {
            // What an HTTP/1.0 application said of itself is not true of us.
            *answer.version_mut() = Version::HTTP_11;
            answer
        }
        Err(Refusal::Answer(error) | Refusal::Reset(error)) => answer::of_error(&error, &mut call),
    };
    Ok(answer::finish(answer, call))
}

async fn steps(
    worker: &Rc<Worker>,
    connected: &Connected,
    request: Request<Incoming>,
    call: &mut Call,
) -> Result<Response<DownBody>, Refusal> {
    worker.admit().map_err(Refusal::Answer)?;
    // Without a snapshot nobody knows who may: another instance may have one.
    let table = worker.table().ok_or(Refusal::Reset(RouterError::NotReady))?;
    let app = worker.app(&table, connected.original);
    let admitted = for_application(worker, connected, &table, app.1, request, call).await;
    let (request, quota) = admitted?;
    // A call may live for days: it must not keep an old table with it.
    drop(table);
    let mut response = send(&app, request, call).await?.map(DownBody::stream);
    if let Some(quota) = quota {
        quota.tell(response.headers_mut());
    }
    Ok(response)
}

/// Limits of the service whose instance is beside us, or of all that are.
async fn check(
    worker: &Worker,
    connected: &Connected,
    table: &Table,
    parts: &request::Parts,
    call: &Call,
) -> Result<Option<Box<Quota>>, RouterError> {
    if table.inbound_limits.is_empty() {
        return Ok(None);
    }
    let limits = match connected.original {
        None => table.inbound_limits.get(&worker.shared.config.service),
        Some(to) => {
            let port = table.places.as_ref().and_then(|places| places.port(to.port()));
            port.map(|port| &port.limits).filter(|limits| !limits.is_empty())
        }
    };
    match limits {
        None => Ok(None),
        Some(limits) => {
            let checking = limit::check(worker, connected, limits, parts, call);
            Box::pin(checking).await.map(Some)
        }
    }
}

/// Whether the kubelet may be asking the application how it is: what is told to
/// anybody.
fn is_probe(worker: &Worker, connected: &Connected, parts: &request::Parts) -> bool {
    let (Some(pod), Some(to)) = (&worker.shared.config.pod, connected.original) else {
        return false;
    };
    let path = parts.uri.path();
    connected.peer.is_empty()
        && (parts.method == Method::GET || path == GRPC_HEALTH)
        && pod.probes.has(to.port(), path)
}

/// Asks all who may say whether a request may come.
async fn ask(
    worker: &Rc<Worker>,
    connected: &Connected,
    table: &Table,
    parts: &mut request::Parts,
    call: &mut Call,
) -> Result<(), RouterError> {
    let Some(guards) = table.guards.as_deref() else { return Ok(()) };
    let peer = &*connected.peer;
    let mut asked = None;
    for own in table.owners(connected.original, worker.shared.config.service.as_str()) {
        // Services without policies of their own share the mesh's.
        let guard = std::ptr::from_ref(guards.of_service(own));
        if asked.replace(guard) == Some(guard) || !guards.asks_of(own) {
            continue;
        }
        let asking = auth::incoming(worker, connected, guards, own, peer, parts, call);
        Box::pin(asking).await?;
    }
    Ok(())
}

enum Refusal {
    /// The client is told.
    Answer(RouterError),
    /// The other router may try elsewhere.
    Reset(RouterError),
}

/// Makes a request fit for the application, if it may reach it.
async fn for_application(
    worker: &Rc<Worker>,
    connected: &Connected,
    table: &Table,
    protocol: Protocol,
    request: Request<Incoming>,
    call: &mut Call,
) -> Result<(Request<UpBody>, Option<Box<Quota>>), Refusal> {
    let (mut parts, body) = request.into_parts();
    if connected.original.is_some() {
        in_pod(connected, table, &mut parts, call).map_err(Refusal::Answer)?;
    }
    let (options, slashes) = (parts.method == Method::OPTIONS, table.options.escaped_slashes);
    canonical::apply(&mut parts.uri, options, slashes, call).map_err(Refusal::Answer)?;
    headers::forwarded(&mut parts, connected);
    let quota = if is_probe(worker, connected, &parts) {
        None
    } else {
        let asked = ask(worker, connected, table, &mut parts, call).await;
        asked.map_err(Refusal::Answer)?;
        let checked = check(worker, connected, table, &parts, call).await;
        checked.map_err(Refusal::Answer)?
    };
    if let Some(peer) = &connected.client_cert {
        parts.headers.insert(headers::CLIENT_CERT, peer.clone());
    }
    call.set_deadline(&parts, None);
    call.inject(&mut parts.headers);
    let empty = hyper::body::Body::is_end_stream(&body);
    let body = if empty { UpBody::Empty } else { UpBody::Stream(body) };
    if protocol == Protocol::Http1 {
        headers::to_http1(&mut parts.uri, &mut parts.headers, &body);
        parts.version = Version::HTTP_11;
    } else {
        parts.version = Version::HTTP_2;
    }
    Ok((Request::from_parts(parts, body), quota))
}

/// What is different in a pod: anybody may have sent it, to any of several services.
fn in_pod(
    connected: &Connected,
    table: &Table,
    parts: &mut request::Parts,
    call: &mut Call,
) -> Result<(), RouterError> {
    if connected.peer.is_empty() {
        headers::check(&parts.headers)?;
        if parts.method == Method::CONNECT {
            return Err(RouterError::Unsupported("CONNECT is not supported"));
        }
        headers::distrust(&mut parts.headers, connected, table);
    }
    let host = target::host_of(&parts.uri, &parts.headers).unwrap_or_default();
    let port = target::port_of(&parts.uri, &parts.headers);
    if let Some(service) = table.named(connected.original, host, port) {
        call.to(service);
    }
    Ok(())
}

/// The application: connections to it, and what it speaks.
type App = (Rc<Pool>, Protocol);

async fn send(
    app: &App,
    request: Request<UpBody>,
    call: &mut Call,
) -> Result<Response<Incoming>, Refusal> {
    let again = repeatable(&request);
    let first = once(app, request, call).await?;
    let second = match first {
        Ok(response) => return Ok(response),
        // An idle connection that the application had just closed.
        Err((_, Some(request))) => request,
        Err((error, None)) => match again {
            Some(request) => request,
            None => return Err(Refusal::Answer(error)),
        },
    };
    call.retried();
    match once(app, second, call).await? {
        Ok(response) => Ok(response),
        Err((error, Some(_))) => Err(Refusal::Reset(error)),
        Err((error, None)) => Err(Refusal::Answer(error)),
    }
}

type Attempt = Result<Response<Incoming>, (RouterError, Option<Request<UpBody>>)>;

async fn once(app: &App, request: Request<UpBody>, call: &mut Call) -> Result<Attempt, Refusal> {
    let sending = app.0.send(request);
    let result = match call.deadline() {
        None => sending.await,
        Some(deadline) => match timeout_at(deadline, sending).await {
            Ok(result) => result,
            Err(_) => return Err(Refusal::Answer(RouterError::Timeout(call.budget()))),
        },
    };
    let name = || "the application".to_owned();
    match result {
        Ok(Sent { mut response, lease }) => {
            headers::strip_hop_by_hop(response.headers_mut());
            if app.1 == Protocol::Http1 {
                headers::own_values(response.headers_mut());
            }
            call.answered(&response);
            call.hold_app(lease);
            Ok(Ok(response))
        }
        Err(Failure::Connect(error, _)) => Err(Refusal::Reset(RouterError::Connect(name(), error))),
        Err(Failure::Refused(error)) => Err(Refusal::Reset(RouterError::Upstream(name(), error))),
        Err(Failure::Unsent(error, request)) => {
            Ok(Err((RouterError::Upstream(name(), error), Some(*request))))
        }
        Err(Failure::Broken(error)) => Ok(Err((RouterError::Upstream(name(), error), None))),
    }
}

/// A copy of a request that may be sent twice without harm: idempotent
/// (RFC 9110 §9.2.2) and without a body.
fn repeatable(request: &Request<UpBody>) -> Option<Request<UpBody>> {
    let harmless = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !harmless || !matches!(request.body(), UpBody::Empty) {
        return None;
    }
    let mut copy = Request::new(UpBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
