//! What HTTPRouteFilters do with a request and its answer.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body::Body as _;
use weir_mesh::policy::filter::{AbortWith, DirectResponse};
use weir_mesh::transcode;

use super::answer::{self, DownBody};
use super::call::{Call, Speaks};
use super::compress::{self, Coding};
use super::forward::Payload;
use super::size::{BodyLimit, Cap, Capped};
use crate::error::{RouterError, grpc};
use crate::table::{Action, ExtensionEntry};

/// What becomes of a request.
pub enum Step {
    /// The router answers itself.
    Answer(Response<DownBody>),
    /// It goes on, with what is still to be done.
    Go(Box<Filtering>),
}

/// What is still to be done for a request.
pub struct Filtering {
    request: Option<Cap>,
    response: Option<u64>,
    compression: Option<Arc<ExtensionEntry>>,
    coding: Option<Coding>,
    method: Method,
    notice: Notice,
}

/// Where the parts of an exchange leave a response flag.
pub type Notice = Rc<Cell<Option<&'static str>>>;

/// Harms, measures or answers a request: delay, abort, limits, direct response.
///
/// # Errors
/// [`RouterError::Injected`], [`RouterError::TooLarge`], or a deadline that has
/// passed meanwhile.
pub async fn request(
    action: &Action,
    parts: &mut Parts,
    call: &mut Call,
) -> Result<Step, RouterError> {
    let filters = &action.extensions;
    let faults = || filters.iter().filter_map(|entry| Some((entry, entry.filter.fault.as_ref()?)));
    for (entry, fault) in faults() {
        if let Some(delay) = &fault.delay
            && entry.delays.hits(delay.share)
        {
            call.set_deadline(parts, action.timeout);
            call.flag("DI");
            call.in_time(tokio::time::sleep(delay.duration)).await?;
        }
    }
    for (entry, fault) in faults() {
        if let Some(abort) = &fault.abort
            && entry.aborts.hits(abort.share)
        {
            let (status, grpc) = match abort.with {
                AbortWith::Http(status) => (status, grpc_of(status)),
                AbortWith::Grpc(code) => (transcode::http_status(code.into()), code),
            };
            return Err(RouterError::Injected { filter: entry.name.clone(), status, grpc });
        }
    }
    let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
    let limit = filters.iter().fold(None, |limit, entry| least(limit, entry.filter.limits.request));
    if let Some(limit) = limit {
        if content_length(&parts.headers).is_some_and(|length| length > limit) {
            return Err(RouterError::TooLarge(usize::try_from(limit).unwrap_or(usize::MAX)));
        }
        parts.extensions.insert(BodyLimit(limit));
    }
    let mut answers = filters.iter().filter_map(|entry| entry.filter.direct_response.as_ref());
    if let Some(direct) = answers.next() {
        return Ok(Step::Answer(direct_response(direct, call)));
    }
    let notice = Notice::default();
    let compression = filters.iter().find(|entry| entry.filter.compression.is_some()).cloned();
    Ok(Step::Go(Box::new(Filtering {
        request: limit.map(|limit| Cap::new(limit, notice.clone())),
        response: filters.iter().fold(None, |limit, e| least(limit, e.filter.limits.response)),
        coding: compression.as_ref().and_then(|_| compress::accepted(&parts.headers)),
        compression,
        method: parts.method.clone(),
        notice,
    })))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Why sending failed: when a body grew too large, that is why.
#[must_use]
pub fn error(filtering: Option<&Filtering>, error: RouterError) -> RouterError {
    match filtering.and_then(|filtering| filtering.request.as_ref()) {
        Some(cap) if cap.is_over() => RouterError::TooLarge(cap.limit()),
        _ => error,
    }
}

impl Filtering {
    /// Watches the size of a body while it is sent.
    #[must_use]
    pub fn payload(&self, payload: Payload) -> Payload {
        match &self.request {
            None => payload,
            Some(cap) => payload.capped(cap),
        }
    }

    /// Measures an answer, and makes it smaller.
    ///
    /// # Errors
    /// [`RouterError::BadAnswer`] when it is known to be too large.
    pub fn response(
        &self,
        mut response: Response<DownBody>,
        call: &Call,
    ) -> Result<Response<DownBody>, RouterError> {
        if let Some(limit) = self.response {
            let known = response.body().size_hint().lower();
            if known > limit {
                let why =
                    format!("its body has {known} bytes, and at most {limit} are let through");
                return Err(RouterError::BadAnswer(call.backend_name(), why));
            }
        }
        if self.response.is_some() || self.request.is_some() {
            let grpc = call.speaks() == Speaks::Grpc;
            let notice = self.notice.clone();
            let cap = self.response.map(|limit| Cap::new(limit, notice.clone()));
            response = response.map(|body| {
                let watch = |inner| Capped::new(inner, cap, self.request.clone(), grpc);
                body.through(watch).noticing(notice)
            });
        }
        if call.speaks() == Speaks::Http
            && let Some(compression) =
                self.compression.as_ref().and_then(|e| e.filter.compression.as_ref())
        {
            response = compress::response(compression, self.coding, &self.method, response);
        }
        Ok(response)
    }
}

fn direct_response(direct: &DirectResponse, call: &mut Call) -> Response<DownBody> {
    if call.speaks() != Speaks::Http {
        let code = grpc_of(direct.status);
        call.grpc_status(code);
        return answer::of_grpc_status(call.speaks(), code, &direct.body);
    }
    let mut response = Response::new(match direct.body.is_empty() {
        true => DownBody::empty(),
        false => DownBody::full(direct.body.as_bytes().to_vec()),
    });
    *response.status_mut() = direct.status;
    for (name, value) in &direct.headers {
        response.headers_mut().append(name, HeaderValue::clone(value));
    }
    response
}

/// What a gRPC client makes of an HTTP status ("HTTP to gRPC status code
/// mapping" of gRPC's documentation).
pub fn grpc_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => grpc::INTERNAL,
        401 => grpc::UNAUTHENTICATED,
        403 => grpc::PERMISSION_DENIED,
        404 => grpc::UNIMPLEMENTED,
        429 | 502..=504 => grpc::UNAVAILABLE,
        _ => grpc::UNKNOWN,
    }
}
