//! A request from our application to a host that is no service: out of the mesh,
//! as HTTP/1.1 in plaintext, if that is allowed.

use std::net::SocketAddr;
use std::rc::Rc;

use http::{Request, Response, Version, header};
use hyper::body::Incoming;
use tokio::time::timeout_at;

use super::egress;
use super::upstream::Refused;
use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::request::answer::DownBody;
use crate::request::call::{Call, Speaks};
use crate::request::forward::{Payload, outgoing};
use crate::request::{headers, target};
use crate::table::Table;
use crate::upstream::{Failure, Reach};
use crate::worker::Worker;

/// Addresses, and connections that had just closed, that are tried.
const ATTEMPTS: usize = 4;
const GRPC: &str = "gRPC to hosts outside the mesh is not supported; add the host as a service \
                    with addresses";

/// Whether a request that names no service may be one for the outside: then
/// [`http`] says what becomes of it.
#[must_use]
pub fn is_meant<B>(table: &Table, connected: &Connected, request: &Request<B>) -> bool {
    let Some(egress) = &table.options.egress else { return false };
    // A name without a dot is a service's, misspelt, unless it is listed.
    connected.side == Side::Outbound
        && place(request)
            .is_some_and(|(host, port)| host.contains(['.', ':']) || egress.lists_name(&host, port))
}

/// Sends it.
///
/// # Errors
/// [`RouterError::Egress`] when it may not leave; as for other requests.
pub async fn http(
    worker: &Rc<Worker>,
    table: &Table,
    connected: &Connected,
    request: Request<Incoming>,
    call: &mut Call,
) -> Result<Response<DownBody>, RouterError> {
    let (Some(egress), Some((host, port))) = (&table.options.egress, place(&request)) else {
        return Err(RouterError::NoHost);
    };
    if call.speaks() == Speaks::Grpc {
        return Err(RouterError::Unsupported(GRPC));
    }
    let found = egress::find(worker, egress, &host, port).await;
    let addresses = found.map_err(|refused| match refused {
        Refused::Egress(denied) => RouterError::Egress(denied),
        other => RouterError::Lookup(other.to_string()),
    })?;
    let (mut parts, body) = request.into_parts();
    headers::forwarded(&mut parts, connected);
    call.set_deadline(&parts, None);
    let mut payload = Payload::stream(body);
    let mut last = None;
    let mut left: Vec<SocketAddr> = addresses;
    for _ in 0..ATTEMPTS {
        let (Some(address), Some(body)) = (left.first().copied(), payload.attempt()) else { break };
        let request = outgoing(&parts, body, Reach::Http1, call);
        let pool = worker.outside.pool(address);
        let sent = match call.deadline() {
            None => pool.send(request).await,
            Some(deadline) => match timeout_at(deadline, pool.send(request)).await {
                Ok(sent) => sent,
                Err(_) => return Err(RouterError::Timeout(call.budget())),
            },
        };
        match sent {
            Ok(mut sent) => {
                payload.settle();
                call.hold_app(sent.lease);
                *sent.response.version_mut() = Version::HTTP_11;
                headers::strip_hop_by_hop(sent.response.headers_mut());
                call.answered(&sent.response);
                return Ok(sent.response.map(DownBody::stream));
            }
            Err(Failure::Connect(error, _)) => {
                left.remove(0);
                last = Some(RouterError::Connect(host.clone(), error));
            }
            // An idle connection that the host had just closed.
            Err(Failure::Unsent(error, _)) => {
                last = Some(RouterError::Upstream(host.clone(), error));
            }
            Err(Failure::Refused(error) | Failure::Broken(error)) => {
                return Err(RouterError::Upstream(host.clone(), error));
            }
        }
    }
    Err(last.unwrap_or_else(|| RouterError::NoInstance(host)))
}

/// Host, in lower case, and port that a request names.
fn place<B>(request: &Request<B>) -> Option<(String, u16)> {
    let host = target::host(request)?.to_ascii_lowercase();
    let port = match request.uri().authority() {
        Some(authority) => authority.port_u16(),
        None => {
            let host = request.headers().get(header::HOST)?.to_str().ok()?;
            host.parse::<http::uri::Authority>().ok()?.port_u16()
        }
    };
    Some((host, port.unwrap_or(80)))
}
