//! Which rule takes a request.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, Request, Uri};

use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::table::{Action, Destination, Meant, Query, Table};

/// The rule for a request.
///
/// # Errors
/// When it names no host or service, or no rule takes it.
pub fn find<B>(
    table: &Table,
    connected: &Connected,
    request: &Request<B>,
) -> Result<Arc<Action>, RouterError> {
    find_as(table, connected, request, request.method())
}

/// The rule for a request if it had this method.
///
/// # Errors
/// As [`find`].
pub fn find_as<B>(
    table: &Table,
    connected: &Connected,
    request: &Request<B>,
    method: &Method,
) -> Result<Arc<Action>, RouterError> {
    // RFC 9112 §3.2: two could mean one thing to us and another to the upstream.
    let headers = request.headers();
    let repeats = headers.len() > headers.keys_len();
    if repeats && headers.get_all(http::header::HOST).iter().nth(1).is_some() {
        return Err(RouterError::BadRequest("more than one Host header".to_owned()));
    }
    let host = host(request).ok_or(RouterError::NoHost)?;
    if !request.uri().path().starts_with('/') {
        let why = "the request's target must be a path that begins with /";
        return Err(RouterError::BadRequest(why.to_owned()));
    }
    let query =
        Query { host, path: request.uri().path(), query: request.uri().query(), method, headers };
    if connected.side == Side::Gateway {
        let lower;
        let query = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            Query { host: &lower, ..query }
        } else {
            query
        };
        let matcher = match connected.port {
            0 => Some(&table.gateway),
            port => table.listeners.at(port).and_then(|port| port.matcher(query.host)),
        };
        let found = matcher.and_then(|matcher| matcher.find(&query));
        return found.cloned().ok_or(RouterError::NoRoute);
    }
    let meant = connected.original.filter(|_| connected.side == Side::Outbound);
    let destination = match meant {
        None => {
            // Elsewhere a service has one port, and nobody looks for its number.
            let port = table.places.as_ref().and_then(|_| port_of(request.uri(), headers));
            destination(table, host, port)
                .ok_or_else(|| RouterError::NoService(host.chars().take(80).collect()))?
        }
        // Whatever host it names.
        Some(to) => match by_address(table, to).ok_or(RouterError::NoInstance(to.to_string()))? {
            Found::Service(destination) => destination,
            Found::Instance(action) => return Ok(action),
        },
    };
    if destination.routes.is_empty() {
        return Ok(destination.default.clone());
    }
    destination.routes.find(&query).cloned().ok_or(RouterError::NoRoute)
}

enum Found<'a> {
    Service(&'a Destination),
    Instance(Arc<Action>),
}

/// What an address means to a router in a pod.
fn by_address(table: &Table, to: SocketAddr) -> Option<Found<'_>> {
    let places = table.places.as_ref()?;
    Some(match places.find(to)? {
        Meant::Service(service) => Found::Service(table.services.get(&service.name)?),
        Meant::Instance(service, version, endpoint) => {
            Found::Instance(places.action(service, version, endpoint))
        }
    })
}

/// The service that a host inside the mesh means, with the port that it is asked for
/// at: Kubernetes has services on several.
pub fn destination<'a>(table: &'a Table, host: &str, port: Option<u16>) -> Option<&'a Destination> {
    if let Some(places) = &table.places {
        return in_namespace(table, &places.namespace, host, port);
    }
    table
        .services
        .get(service_label(host))
        .or_else(|| table.services.get(service_label(&host.to_ascii_lowercase())))
        .or_else(|| table.services.get(without_domain(&host.to_ascii_lowercase())))
}

/// As the names of Kubernetes' DNS: `products` is in the caller's own namespace. The
/// first port of a service has its bare name.
fn in_namespace<'a>(
    table: &'a Table,
    namespace: &str,
    host: &str,
    port: Option<u16>,
) -> Option<&'a Destination> {
    let host = host.to_ascii_lowercase();
    let name = without_domain(&host);
    let whole = if name.contains('.') { name.to_owned() } else { format!("{name}.{namespace}") };
    let of_port = port.and_then(|port| table.services.get(&*format!("{whole}:{port}")));
    of_port.or_else(|| table.services.get(&*whole)).or_else(|| table.services.get(name))
}

fn without_domain(host: &str) -> &str {
    let of = |suffix: &&str| host.strip_suffix(*suffix);
    [".svc.cluster.local", ".svc"].iter().find_map(of).unwrap_or(host)
}

/// The port that a request names.
pub fn port_of(uri: &Uri, headers: &HeaderMap) -> Option<u16> {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(http::header::HOST)?.to_str().ok()?,
    };
    authority.rsplit_once(':')?.1.parse().ok()
}

/// The host that a request names, without port: `:authority` (or the absolute
/// form of HTTP/1.1) before `Host` (RFC 9112 §3.2.2).
pub fn host<B>(request: &Request<B>) -> Option<&str> {
    host_of(request.uri(), request.headers())
}

/// The same, of a request's parts.
pub fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => {
            let host = headers.get(http::header::HOST)?.to_str().ok()?;
            // What is no authority could not be sent on. A plain name, as most are,
            // always is one.
            if !is_name(host) {
                host.parse::<http::uri::Authority>().ok()?;
            }
            host
        }
    };
    // RFC 9110 §4.2.4: whoever writes a user there means to mislead.
    if authority.contains('@') {
        return None;
    }
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty()).then_some(host)
}

/// Letters, digits, dots and hyphens alone, and of them at least one.
fn is_name(host: &str) -> bool {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.');
    !host.is_empty() && host.bytes().all(plain)
}

/// `products`, of `products`, `products.mesh`, `products.default` or
/// `products.default.svc.cluster.local`. Anything else is taken as it is.
fn service_label(host: &str) -> &str {
    match host.split_once('.') {
        Some((label, "mesh" | "default" | "default.svc" | "default.svc.cluster.local")) => label,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str, header: Option<&str>) -> Option<String> {
        let mut request = Request::builder().uri(uri);
        if let Some(header) = header {
            request = request.header("host", header);
        }
        host(&request.body(()).unwrap()).map(str::to_owned)
    }

    #[test]
    fn the_host_is_found_in_every_form() {
        assert_eq!(of("http://products/x", None).unwrap(), "products");
        assert_eq!(of("http://products:80/x", Some("other")).unwrap(), "products");
        assert_eq!(of("/x", Some("products.mesh:8080")).unwrap(), "products.mesh");
        assert_eq!(of("/x", Some("[::1]:8080")).unwrap(), "::1");
        assert_eq!(of("/x", Some("products.")).unwrap(), "products");
        assert_eq!(of("/x", None), None);
        assert_eq!(of("/x", Some("")), None);
        assert_eq!(of("/x", Some("me@products")), None);
        assert_eq!(of("/x", Some("a/b")), None);
        assert_eq!(of("/x", Some("shop:1:1")), None);
    }

    proptest::proptest! {
        #[test]
        fn a_plain_name_always_is_an_authority(host in "[-.:@/%_a-zA-Z0-9]{0,20}") {
            let parsed = host.parse::<http::uri::Authority>().is_ok();
            proptest::prop_assert!(parsed || !is_name(&host), "{host}");
        }
    }

    #[test]
    fn only_our_own_suffixes_are_taken_off() {
        assert_eq!(service_label("products.default.svc.cluster.local"), "products");
        assert_eq!(service_label("products.mesh"), "products");
        assert_eq!(service_label("products.example.com"), "products.example.com");
    }
}
