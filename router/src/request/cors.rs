//! Calls from browsers' pages of other origins (Fetch standard, "CORS
//! protocol"): as the rule's CORS filter says, else at the gateway as the mesh's
//! options say.

use std::fmt::Display;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use weir_mesh::model::{Cors, Names, OriginPattern};

use super::answer::DownBody;
use super::call::Call;
use super::target;
use crate::connection::{Connected, Side};
use crate::table::{Action, Table};
use crate::worker::Worker;

const EXPOSED: HeaderValue = HeaderValue::from_static(
    "grpc-status, grpc-message, grpc-status-details-bin, x-weir-version, traceparent",
);

/// The origin of the page that asks, if a page of another origin may be asking.
pub fn origin<B>(request: &Request<B>) -> Option<HeaderValue> {
    request.headers().get(header::ORIGIN).cloned()
}

/// The answer to a preflight, where a rule or the mesh has one.
pub fn preflight<B>(
    connected: &Connected,
    table: &Table,
    request: &Request<B>,
    call: &mut Call,
) -> Option<Response<DownBody>> {
    let (action, answer) = preflight_of(connected, table, request)?;
    if let Some(action) = action {
        call.matched(&action);
    }
    Some(answer)
}

/// The same, with the rule whose CORS filter answers; none: the mesh's options do.
pub fn preflight_of<B>(
    connected: &Connected,
    table: &Table,
    request: &Request<B>,
) -> Option<(Option<Arc<Action>>, Response<DownBody>)> {
    if request.method() != Method::OPTIONS {
        return None;
    }
    let asked = request.headers();
    let method = asked.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let origin = origin(request)?;
    // The rule of the call to come; a preflight has not its headers.
    let to_come = Method::from_bytes(method.as_bytes()).ok();
    let rules = to_come.iter().chain([&Method::OPTIONS]);
    let found = rules
        .filter_map(|method| target::find_as(table, connected, request, method).ok())
        .find(|action| action.cors().is_some());
    if let Some(action) = found
        && let Some(cors) = action.cors()
    {
        let answer = rule_preflight(cors, &origin, asked);
        return Some((Some(action), answer));
    }
    if connected.side != Side::Gateway || !allowed(table, &origin) {
        return None;
    }
    let mut response = no_content();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    Some((None, response))
}

fn no_content() -> Response<DownBody> {
    let mut response = Response::new(DownBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// An origin that is not allowed gets the same answer without a permission.
fn rule_preflight(cors: &Cors, origin: &HeaderValue, asked: &HeaderMap) -> Response<DownBody> {
    let mut response = no_content();
    if !rule_allows(cors, origin) {
        return response;
    }
    let headers = response.headers_mut();
    let list = |names: Option<HeaderValue>, any: bool, asked: Option<&HeaderValue>| {
        // `*` says nothing where credentials are sent.
        if any && cors.allow_credentials { asked.cloned() } else { names }
    };
    let any = matches!(cors.allow_methods, Names::Any);
    let asked_method = asked.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    if let Some(methods) = list(names(&cors.allow_methods), any, asked_method) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    let any = matches!(cors.allow_headers, Names::Any);
    let asked_headers = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(allowed) = list(names(&cors.allow_headers), any, asked_headers) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.into());
    response
}

/// Whether a page of this origin may read answers of a rule.
pub fn rule_allows(cors: &Cors, origin: &HeaderValue) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    cors.allow_origins.iter().any(|pattern| pattern.matches(origin))
}

fn names<T: Display>(names: &Names<T>) -> Option<HeaderValue> {
    match names {
        Names::Any => Some(HeaderValue::from_static("*")),
        Names::These(names) if names.is_empty() => None,
        Names::These(names) => {
            let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
            texts.join(", ").parse().ok()
        }
    }
}

/// Lets the page read the answer, where the rule or the mesh allows its origin.
pub fn allow(worker: &Worker, call: &Call, origin: HeaderValue, response: &mut Response<DownBody>) {
    if let Some(cors) = call.action().and_then(|action| action.cors()) {
        rule_allow(cors, origin, response.headers_mut());
    } else if call.side() == Side::Gateway
        && let Some(table) = worker.table()
        && allowed(&table, &origin)
    {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

fn rule_allow(cors: &Cors, origin: HeaderValue, headers: &mut HeaderMap) {
    // What the upstream says of this is not what the rule says.
    headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    let any = matches!(cors.allow_origins.as_slice(), [OriginPattern::Any]);
    if !any || cors.allow_credentials {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    if !rule_allows(cors, &origin) {
        return;
    }
    let told = match any && !cors.allow_credentials {
        true => HeaderValue::from_static("*"),
        false => origin,
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, told);
    if cors.allow_credentials {
        let allow = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, allow);
    }
    if let Some(names) = names(&cors.expose_headers) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, names);
    }
}

/// Whether a page of this origin may, as the mesh says.
pub fn allowed(table: &Table, origin: &HeaderValue) -> bool {
    table.options.cors_origins.iter().any(|o| &**o == "*" || o.as_bytes() == origin.as_bytes())
}
