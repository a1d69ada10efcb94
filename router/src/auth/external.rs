//! Decisions of another service, by Envoy's `ext_authz` over gRPC.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request};
use weir_mesh::policy::authorization::{External, Mode};
use weir_proto::envoy::service::auth::v3 as pb;

use super::denial::Denial;
use super::{Place, rpc};
use crate::error::RouterError;
use crate::request::call::Call;
use crate::request::headers as names;
use crate::worker::Worker;

/// What is asked.
pub(super) const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Of an answer.
const LIMIT: usize = 256 * 1024;

/// Asks, and does what the answer says of headers.
///
/// # Errors
/// [`RouterError::Denied`]; also when there is no answer, unless the policy fails
/// open.
pub(super) async fn ask(
    worker: &Rc<Worker>,
    place: &Place<'_>,
    asked: &(Arc<str>, External, Mode),
    parts: &mut request::Parts,
    call: &mut Call,
) -> Result<(), RouterError> {
    let (policy, external, mode) = asked;
    let question = question(place, external, parts);
    let limits = (external.timeout, LIMIT);
    let answer = rpc::unary(worker, &external.service, PATH, &question, limits).await;
    let denial = match answer {
        Ok(answer) => match denied(answer, policy, place, parts, *mode) {
            None => return Ok(()),
            Some(denial) => denial,
        },
        Err(error) if external.fail_open => {
            count(worker, policy, "failed_open");
            call.flag("UAEX_FAILED_OPEN");
            tracing::warn!(%error, %policy, "no external decision; the request goes on");
            return Ok(());
        }
        Err(error) => {
            let status = StatusCode::FORBIDDEN;
            let hide = place.guards.hide_policies;
            count(worker, policy, "failed");
            Denial::external(status, policy, &error, hide, None)
        }
    };
    if *mode == Mode::Audit {
        count(worker, policy, "audit");
        call.audited(format!("would be denied: {}", denial.full));
        return Ok(());
    }
    count(worker, policy, "denied");
    call.explain("weir.authorization.policy", policy.to_string());
    Err(denial.into())
}

fn count(worker: &Rc<Worker>, policy: &str, result: &str) {
    let labels = [("weir_policy", policy), ("result", result)];
    let help = "External decisions that did not let a request pass as asked.";
    let registry = worker.shared.metrics.registry();
    registry.counter("weir.router.ext_authz", help, "", &labels).inc();
}

fn question(place: &Place<'_>, external: &External, parts: &request::Parts) -> pb::CheckRequest {
    use pb::attribute_context::{HttpRequest, Peer, Request};
    let mut headers: HashMap<String, String> = HashMap::new();
    for (name, value) in &parts.headers {
        let wanted = external.headers.as_ref().is_none_or(|wanted| wanted.contains(name));
        let Some(value) = value.to_str().ok().filter(|_| wanted) else { continue };
        let entry = headers.entry(name.as_str().to_owned()).or_default();
        if !entry.is_empty() {
            entry.push(',');
        }
        entry.push_str(value);
    }
    let host = parts.uri.authority().map(|authority| authority.as_str().to_owned());
    let named = || parts.headers.get(header::HOST)?.to_str().ok().map(str::to_owned);
    let address = place.connected.peer_address;
    let socket =
        pb::SocketAddress { address: address.ip().to_string(), port_value: address.port().into() };
    let http = HttpRequest {
        method: parts.method.to_string(),
        headers,
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        host: host.or_else(named).unwrap_or_default(),
        scheme: "http".to_owned(),
        size: -1,
        protocol: format!("{:?}", parts.version),
        ..HttpRequest::default()
    };
    pb::CheckRequest {
        attributes: Some(pb::AttributeContext {
            source: Some(Peer {
                address: Some(pb::Address { socket_address: Some(socket) }),
                principal: place.identity.to_owned(),
                ..Peer::default()
            }),
            destination: Some(Peer { service: place.service.to_owned(), ..Peer::default() }),
            request: Some(Request { time: Some(SystemTime::now().into()), http: Some(http) }),
            context_extensions: HashMap::new(),
        }),
    }
}

/// The denial that an answer is; else its headers are set.
fn denied(
    answer: pb::CheckResponse,
    policy: &str,
    place: &Place<'_>,
    parts: &mut request::Parts,
    mode: Mode,
) -> Option<Denial> {
    use pb::check_response::HttpResponse;
    // An answer that says nothing allows nothing.
    let ok = answer.status.as_ref().is_some_and(|status| status.code == 0);
    match answer.http_response {
        Some(HttpResponse::OkResponse(response)) if ok => {
            if mode == Mode::Enforce {
                let remove = response.headers_to_remove.iter().filter_map(|name| name.parse().ok());
                for name in remove.filter(may_change) {
                    parts.headers.remove(name);
                }
                set(&mut parts.headers, &response.headers);
            }
            None
        }
        None if ok => None,
        Some(HttpResponse::DeniedResponse(response)) => {
            let code = response.status.map_or(0, |status| status.code);
            let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.filter(|s| s.as_u16() >= 300).unwrap_or(StatusCode::FORBIDDEN);
            let mut headers = HeaderMap::new();
            set(&mut headers, &response.headers);
            let answer = Some((headers, Bytes::from(response.body)));
            let hide = place.guards.hide_policies;
            Some(Denial::external(status, policy, "its service denies it", hide, answer))
        }
        _ => {
            let (status, hide) = (StatusCode::FORBIDDEN, place.guards.hide_policies);
            Some(Denial::external(status, policy, "its service denies it", hide, None))
        }
    }
}

/// What frames a message and who sent it is not another service's to say.
fn may_change(name: &HeaderName) -> bool {
    ![
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::TE,
    ]
    .contains(name)
        && *name != names::CLIENT_CERT
}

fn set(headers: &mut HeaderMap, options: &[pb::HeaderValueOption]) {
    for option in options {
        let Some(sent) = &option.header else { continue };
        let value = if sent.raw_value.is_empty() { sent.value.as_bytes() } else { &sent.raw_value };
        let (Ok(name), Ok(value)) =
            (sent.key.parse::<HeaderName>(), HeaderValue::from_bytes(value))
        else {
            continue;
        };
        if !may_change(&name) {
            continue;
        }
        if option.append.unwrap_or(false) {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
}
