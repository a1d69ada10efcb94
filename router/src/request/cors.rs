//! Calls from browsers' pages of other origins, at the gateway (Fetch standard,
//! "CORS protocol").

use std::rc::Rc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::answer::DownBody;
use crate::connection::{Connected, Side};
use crate::table::Table;
use crate::worker::Worker;

const EXPOSED: HeaderValue = HeaderValue::from_static(
    "grpc-status, grpc-message, grpc-status-details-bin, x-weir-version, traceparent",
);

/// The origin of the page that asks, if a page of another origin may be asking.
pub fn origin<B>(connected: &Connected, request: &Request<B>) -> Option<HeaderValue> {
    if connected.side != Side::Gateway {
        return None;
    }
    request.headers().get(header::ORIGIN).cloned()
}

/// The answer to a preflight, where the mesh allows the origin.
pub fn preflight<B>(
    connected: &Connected,
    table: &Table,
    request: &Request<B>,
) -> Option<Response<DownBody>> {
    if request.method() != Method::OPTIONS {
        return None;
    }
    let asked = request.headers();
    let method = asked.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    if !allowed(table, &origin(connected, request)?) {
        return None;
    }
    let mut response = Response::new(DownBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    Some(response)
}

/// Lets the page read the answer, where the mesh allows its origin.
pub fn allow(
    worker: &Rc<Worker>,
    origin: Option<HeaderValue>,
    mut response: Response<DownBody>,
) -> Response<DownBody> {
    if let Some(origin) = origin
        && let Some(table) = worker.table()
        && allowed(&table, &origin)
    {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

fn allowed(table: &Table, origin: &HeaderValue) -> bool {
    table.options.cors_origins.iter().any(|o| &**o == "*" || o.as_bytes() == origin.as_bytes())
}
