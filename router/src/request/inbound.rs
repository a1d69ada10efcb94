//! A request that another router sent by mTLS, for the application beside us.

use std::rc::Rc;

use http::{Method, Request, Response, Version, request};
use hyper::body::Incoming;
use tokio::time::timeout_at;
use weir_mesh::model::Protocol;

use super::answer::{self, DownBody};
use super::body::UpBody;
use super::call::Call;
use super::{canonical, headers, limit};
use crate::auth;
use crate::connection::Connected;
use crate::error::RouterError;
use crate::limit::quota::Quota;
use crate::table::Table;
use crate::upstream::{Failure, Sent};
use crate::worker::Worker;

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
    if let Err(error) = worker.admit() {
        return Ok(answer::finish(answer::of_error(&error, &mut call), call));
    }
    let admitted = for_application(&worker, &connected, request, &mut call).await;
    let sent = match admitted {
        Ok((request, quota)) => send(&worker, request, &mut call).await.map(|sent| (sent, quota)),
        Err(refusal) => Err(refusal),
    };
    let answer = match sent {
        Ok((response, quota)) => {
            let mut response = response.map(DownBody::stream);
            if let Some(quota) = quota {
                quota.tell(response.headers_mut());
            }
            response
        }
        Err(Refusal::Answer(error)) => answer::of_error(&error, &mut call),
        Err(Refusal::Reset(error)) => {
            call.failed(&error);
            call.end(true);
            return Err(h2::Reason::REFUSED_STREAM.into());
        }
    };
    Ok(answer::finish(answer, call))
}

/// Limits of the service whose instance is beside us.
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
    match table.inbound_limits.get(&worker.shared.config.service) {
        None => Ok(None),
        Some(limits) => {
            let checking = limit::check(worker, connected, limits, parts, call);
            Box::pin(checking).await.map(Some)
        }
    }
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
    request: Request<Incoming>,
    call: &mut Call,
) -> Result<(Request<UpBody>, Option<Box<Quota>>), Refusal> {
    let (mut parts, body) = request.into_parts();
    // Without a snapshot nobody knows who may: another instance may have one.
    let table = worker.table().ok_or(Refusal::Reset(RouterError::NotReady))?;
    let (options, slashes) = (parts.method == Method::OPTIONS, table.options.escaped_slashes);
    canonical::apply(&mut parts.uri, options, slashes, call).map_err(Refusal::Answer)?;
    headers::forwarded(&mut parts, connected);
    let (own, peer) = (worker.shared.config.service.as_str(), &*connected.peer);
    if let Some(guards) = table.guards.as_deref().filter(|guards| guards.asks_of(own)) {
        let asking = auth::incoming(worker, connected, guards, own, peer, &mut parts, call);
        Box::pin(asking).await.map_err(Refusal::Answer)?;
    }
    let checked = check(worker, connected, &table, &parts, call).await;
    let quota = checked.map_err(Refusal::Answer)?;
    if let Some(peer) = &connected.client_cert {
        parts.headers.insert(headers::CLIENT_CERT, peer.clone());
    }
    call.set_deadline(&parts, None);
    call.inject(&mut parts.headers);
    let empty = hyper::body::Body::is_end_stream(&body);
    let body = if empty { UpBody::Empty } else { UpBody::Stream(body) };
    if worker.shared.config.app_protocol == Protocol::Http1 {
        headers::to_http1(&mut parts.uri, &mut parts.headers, &body);
        parts.version = Version::HTTP_11;
    } else {
        parts.version = Version::HTTP_2;
    }
    Ok((Request::from_parts(parts, body), quota))
}

async fn send(
    worker: &Rc<Worker>,
    request: Request<UpBody>,
    call: &mut Call,
) -> Result<Response<Incoming>, Refusal> {
    let again = repeatable(&request);
    let first = once(worker, request, call).await?;
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
    match once(worker, second, call).await? {
        Ok(response) => Ok(response),
        Err((error, Some(_))) => Err(Refusal::Reset(error)),
        Err((error, None)) => Err(Refusal::Answer(error)),
    }
}

type Attempt = Result<Response<Incoming>, (RouterError, Option<Request<UpBody>>)>;

async fn once(
    worker: &Rc<Worker>,
    request: Request<UpBody>,
    call: &mut Call,
) -> Result<Attempt, Refusal> {
    let sending = worker.app.pool.send(request);
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
            if worker.shared.config.app_protocol == Protocol::Http1 {
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
