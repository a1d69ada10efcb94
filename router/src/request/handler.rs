//! THE path: a request from our application, or from outside at the gateway.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::adapt::Adapter;
use super::answer::{self, DownBody};
use super::call::Call;
use super::forward::Payload;
use super::{
    adapt, canonical, choose, cors, extension, filters, forward, headers, limit, mirror, target,
};
use crate::auth;
use crate::connection::Connected;
use crate::error::RouterError;
use crate::limit::quota::Quota;
use crate::table::reflection::is_reflection;
use crate::tcp;
use crate::worker::Worker;

/// Answers one request. Never fails: an error becomes an answer.
pub async fn handle(
    worker: Rc<Worker>,
    connected: Rc<Connected>,
    request: Request<Incoming>,
) -> Result<Response<DownBody>, Infallible> {
    let mut call = Call::begin(&worker, &connected, &request);
    let origin = cors::origin(&request);
    let mut answer = match steps(&worker, &connected, request, &mut call).await {
        Ok(response) => response,
        Err(error) => answer::of_error(&error, &mut call),
    };
    if let Some(origin) = origin {
        cors::allow(&worker, &call, origin, &mut answer);
    }
    Ok(answer::finish(answer, call))
}

async fn steps(
    worker: &Rc<Worker>,
    connected: &Connected,
    mut request: Request<Incoming>,
    call: &mut Call,
) -> Result<Response<DownBody>, RouterError> {
    worker.admit()?;
    let table = worker.table().ok_or(RouterError::NotReady)?;
    call.decided_by(table.revision());
    headers::check(request.headers())?;
    if request.method() == Method::CONNECT {
        return Err(RouterError::Unsupported("CONNECT is not supported"));
    }
    let (options, slashes) = (request.method() == Method::OPTIONS, table.options.escaped_slashes);
    canonical::apply(request.uri_mut(), options, slashes, call)?;
    headers::distrust(request.headers_mut(), connected, &table);
    if let Some(preflight) = cors::preflight(connected, &table, &request, call) {
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
        Err(RouterError::NoService(_)) if tcp::is_outside(&table, connected, &request) => {
            return Box::pin(tcp::serve_outside(worker, &table, connected, request, call)).await;
        }
        found => found?,
    };
    call.matched(&action);
    let (mut parts, body) = request.into_parts();
    headers::forwarded(&mut parts, connected);
    if let Some(guards) = auth::concerned(&table, connected, Some(&action)) {
        let asking = auth::outgoing(worker, connected, guards, Some(&action), &mut parts, call);
        Box::pin(asking).await?;
    }
    let quota = match &action.limits[..] {
        [] => None,
        some => Some(Box::pin(limit::check(worker, connected, some, &parts, call)).await?),
    };
    let filtering = match &action.extensions[..] {
        [] => None,
        _ => match Box::pin(extension::request(&action, &mut parts, call)).await? {
            extension::Step::Answer(answer) => return Ok(told(quota, answer)),
            extension::Step::Go(filtering) => Some(filtering),
        },
    };

    let of_rule = action.filters.as_deref();
    if let Some(redirect) = filters::redirect(of_rule, &parts) {
        return Ok(told(quota, redirect));
    }

    let picked = choose::backend(worker, connected, &action, &parts.headers)?;
    let of_backend = picked.backend.filters.as_deref();
    let service = &picked.backend.service;
    call.to(service);
    if let Some(redirect) = filters::redirect(of_backend, &parts) {
        return Ok(told(quota, redirect));
    }

    filters::request(of_rule, &mut parts);
    filters::request(of_backend, &mut parts);
    call.set_deadline(&parts, action.timeout);
    let (adapter, mut payload) = match adapt::concerns(connected, service) {
        true => Box::pin(adapt::request(service, &mut parts, body, call.deadline())).await?,
        false => (Adapter::None, Payload::stream(body)),
    };
    let version = choose::version(worker, connected, &picked, &mut parts);
    if let Some(guards) = auth::in_place_of(&table, service) {
        let asking = auth::stand_in(worker, connected, guards, service, &mut parts, call);
        Box::pin(asking).await?;
    }
    let own = (service, version.version);
    mirror::send(worker, [of_rule, of_backend], own, &parts, &mut payload, call);
    if let Some(filtering) = &filtering {
        payload = filtering.payload(payload);
    }
    let sent = forward::send(worker, service, &version, &parts, &mut payload, call).await;
    let sent = sent.map_err(|error| extension::error(filtering.as_deref(), error))?;

    let mut response = match adapter {
        Adapter::None => adapt::passed(sent, call),
        some => Box::pin(some.response(sent, call)).await?,
    };
    filters::response(of_backend, &mut response);
    filters::response(of_rule, &mut response);
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
