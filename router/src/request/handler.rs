//! THE path: a request from our application, or from outside at the gateway.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::answer::{self, DownBody};
use super::call::Call;
use super::{adapt, canonical, choose, cors, forward, headers, target};
use crate::auth;
use crate::connection::Connected;
use crate::error::RouterError;
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
    mut request: Request<Incoming>,
    call: &mut Call,
) -> Result<Response<DownBody>, RouterError> {
    let table = worker.table().ok_or(RouterError::NotReady)?;
    headers::check_size(request.headers())?;
    if request.method() == Method::CONNECT {
        return Err(RouterError::Unsupported("CONNECT is not supported"));
    }
    let (options, slashes) = (request.method() == Method::OPTIONS, table.options.escaped_slashes);
    canonical::apply(request.uri_mut(), options, slashes, call)?;
    if let Some(preflight) = cors::preflight(connected, &table, &request) {
        return Ok(preflight);
    }
    let action = match target::find(&table, connected, &request) {
        Err(RouterError::NoRoute) if is_reflection(request.uri().path()) => {
            let (mut parts, body) = request.into_parts();
            if let Some(guards) = auth::concerned(&table, connected, None) {
                Box::pin(auth::outgoing(worker, connected, guards, None, &mut parts, call)).await?;
            }
            let request = Request::from_parts(parts, body);
            return Box::pin(answer::of_reflection(&table, request)).await;
        }
        found => found?,
    };
    call.matched(&action);

    let backend = choose::backend(worker, &action);
    let service = &backend.service;
    call.to(service);

    let (mut parts, body) = request.into_parts();
    headers::forwarded(&mut parts, connected);
    if let Some(guards) = auth::concerned(&table, connected, Some(&action)) {
        let asking = auth::outgoing(worker, connected, guards, Some(&action), &mut parts, call);
        Box::pin(asking).await?;
    }
    headers::modify(&mut parts.headers, &action.request_headers);
    call.set_deadline(&parts, action.timeout);
    let (adapter, payload) =
        adapt::request(connected, service, &mut parts, body, call.deadline()).await?;

    let version = choose::version(worker, backend, &parts.headers);
    if let Some(guards) = auth::in_place_of(&table, service) {
        let asking = auth::stand_in(worker, connected, guards, service, &mut parts, call);
        Box::pin(asking).await?;
    }
    let sent = forward::send(worker, service, &version, parts, payload, call).await?;

    let mut response = adapter.response(sent, call).await?;
    headers::modify(response.headers_mut(), &action.response_headers);
    headers::reveal(&mut response, connected, &table, call);
    version.set_cookie(&mut response);
    Ok(response)
}
