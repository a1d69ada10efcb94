//! THE path: a request from our application, or from outside at the gateway.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::answer::{self, DownBody};
use super::call::Call;
use super::{adapt, choose, cors, filter, forward, headers, limit, target};
use crate::connection::Connected;
use crate::error::RouterError;
use crate::limit::quota::Quota;
use crate::table::reflection::is_reflection;
use crate::worker::Worker;

/// Answers one request. Never fails: an error becomes an answer.
pub async fn handle(
    worker: Rc<Worker>,
    connected: Rc<Connected>,
    request: Request<Incoming>,
) -> Result<Response<DownBody>, Infallible> {
    let mut call = Call::begin(&worker, &connected, &request);
    let origin = cors::origin(&connected, &request);
    let answer = match steps(&worker, &connected, request, &mut call).await {
        Ok(response) => response,
        Err(error) => answer::of_error(&error, &mut call),
    };
    Ok(answer::finish(cors::allow(&worker, origin, answer), call))
}

async fn steps(
    worker: &Rc<Worker>,
    connected: &Connected,
    request: Request<Incoming>,
    call: &mut Call,
) -> Result<Response<DownBody>, RouterError> {
    let table = worker.table().ok_or(RouterError::NotReady)?;
    headers::check_size(request.headers())?;
    if request.method() == Method::CONNECT {
        return Err(RouterError::Unsupported("CONNECT is not supported"));
    }
    if let Some(preflight) = cors::preflight(connected, &table, &request) {
        return Ok(preflight);
    }
    let action = match target::find(&table, connected, &request) {
        Err(RouterError::NoRoute) if is_reflection(request.uri().path()) => {
            return Box::pin(answer::of_reflection(&table, request)).await;
        }
        found => found?,
    };
    call.matched(&action);
    let (mut parts, body) = request.into_parts();
    let quota = match &action.limits[..] {
        [] => None,
        some => Some(Box::pin(limit::check(worker, connected, some, &parts, call)).await?),
    };
    let filtering = match &action.filters[..] {
        [] => None,
        _ => match Box::pin(filter::request(&action, &mut parts, call)).await? {
            filter::Step::Answer(answer) => return Ok(told(quota, answer)),
            filter::Step::Go(filtering) => Some(filtering),
        },
    };

    let backend = choose::backend(worker, &action);
    let service = &backend.service;
    call.to(service);

    headers::forwarded(&mut parts, connected);
    headers::modify(&mut parts.headers, &action.request_headers);
    call.set_deadline(&parts, action.timeout);
    let (adapter, payload) =
        adapt::request(connected, service, &mut parts, body, call.deadline()).await?;
    let payload = filter::payload(filtering.as_deref(), payload);

    let version = choose::version(worker, backend, &parts.headers);
    let sent = forward::send(worker, service, &version, parts, payload, call).await;
    let sent = sent.map_err(|error| filter::error(filtering.as_deref(), error))?;

    let mut response = adapter.response(sent, call).await?;
    headers::modify(response.headers_mut(), &action.response_headers);
    headers::reveal(&mut response, connected, &table, call);
    version.set_cookie(&mut response);
    if let Some(filtering) = filtering {
        response = filtering.response(response, call)?;
    }
    Ok(told(quota, response))
}

/// With what its limits say.
fn told(quota: Option<Box<Quota>>, mut response: Response<DownBody>) -> Response<DownBody> {
    if let Some(quota) = quota {
        quota.tell(response.headers_mut());
    }
    response
}
