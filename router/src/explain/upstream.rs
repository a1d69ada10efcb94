//! The request as it is sent on. Steps and their order are those of
//! [`crate::request::handler`].

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, request};
use weir_mesh::model::Protocol;

use super::act;
use super::tell::{Answer, Upstream};
use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::request::adapt::is_grpc;
use crate::request::grpc_web::{self, Encoding};
use crate::request::{baggage, filters, json};
use crate::table::{Action, ServiceEntry, Target};

/// Why no request is sent on.
pub enum Ended {
    /// A redirect to here.
    Redirect(u16, String),
    /// Something is wrong with it.
    Answer(Answer),
}

/// What becomes of a request that may go on: `parts` is as it was when it had
/// been authorized, `before` as it came.
pub fn of(
    connected: &Connected,
    action: &Action,
    target: &Target,
    version: Option<usize>,
    before: &HeaderMap,
    mut parts: request::Parts,
) -> Result<(Upstream, request::Parts), Ended> {
    let of_rule = action.filters.as_deref();
    let of_backend = target.filters.as_deref();
    for filters in [of_rule, of_backend] {
        redirect(filters, &parts)?;
    }
    filters::request(of_rule, &mut parts);
    filters::request(of_backend, &mut parts);
    let mut notes = Vec::new();
    let service = &target.service;
    if connected.side == Side::Gateway && service.protocol == Protocol::Grpc {
        if Encoding::of(&parts.headers).is_some() {
            grpc_web::become_grpc(&mut parts.headers);
            notes.push("gRPC-Web becomes gRPC".to_owned());
        } else if !is_grpc(&parts.headers) {
            let note = transcoded(service, &mut parts);
            notes.push(note.map_err(|error| Ended::Answer(Answer::of(&error)))?);
        }
    }
    let begins =
        connected.side == Side::Gateway && action.rare.as_ref().is_some_and(|rare| rare.pin);
    if (begins || (connected.side != Side::Gateway && baggage::is_pinned(&parts.headers)))
        && let Some(version) = version
    {
        let version = service.versions[version].name.as_str();
        baggage::carry(&mut parts.headers, &service.name, version);
    }
    let host = parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let authority = parts.uri.authority().map(ToString::to_string);
    let upstream = Upstream {
        backend: act::name(target),
        method: parts.method.to_string(),
        authority: authority.or_else(|| host.map(str::to_owned)).unwrap_or_default(),
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: list(&parts.headers),
        added: names(&parts.headers, |name| !same(before, &parts.headers, name)),
        removed: names(before, |name| !parts.headers.contains_key(name)),
        notes,
    };
    Ok((upstream, parts))
}

/// The answer of a redirect, if filters have one.
pub fn redirect(
    filters: Option<&crate::table::Filters>,
    parts: &request::Parts,
) -> Result<(), Ended> {
    let Some(answer) = filters::redirect(filters, parts) else { return Ok(()) };
    let location = answer.headers().get(http::header::LOCATION);
    let location = location.and_then(|value| value.to_str().ok()).unwrap_or_default();
    Err(Ended::Redirect(answer.status().as_u16(), location.to_owned()))
}

/// JSON that becomes gRPC, as far as that can be told without a body.
fn transcoded(service: &ServiceEntry, parts: &mut request::Parts) -> Result<String, RouterError> {
    let Some(transcoder) = &service.transcoder else {
        return Err(RouterError::Unsupported(
            "this service speaks gRPC and has no descriptorSet to map JSON by",
        ));
    };
    let call = json::find(transcoder, parts)?;
    let (method, template) = (&parts.method, call.template());
    let note = format!("JSON becomes gRPC: {method} {template} is {}", call.grpc_path());
    json::become_grpc(&call, parts);
    Ok(note)
}

fn same(before: &HeaderMap, after: &HeaderMap, name: &HeaderName) -> bool {
    before.get_all(name).iter().eq(after.get_all(name).iter())
}

fn names(headers: &HeaderMap, wanted: impl Fn(&HeaderName) -> bool) -> Vec<String> {
    let names: BTreeSet<_> =
        headers.keys().filter(|name| wanted(name)).map(HeaderName::as_str).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Names and values; values that are secrets are not told.
fn list(headers: &HeaderMap) -> Vec<(String, String)> {
    const SECRET: [HeaderName; 3] =
        [http::header::AUTHORIZATION, http::header::COOKIE, http::header::PROXY_AUTHORIZATION];
    let one = |(name, value): (&HeaderName, &http::HeaderValue)| {
        let text = match SECRET.contains(name) {
            true => "(not shown)".to_owned(),
            false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        (name.to_string(), text)
    };
    headers.iter().map(one).collect()
}
