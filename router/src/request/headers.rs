//! What is changed in headers on the way.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, request};
use weir_mesh::model::HeaderModifier;

use super::call::Call;
use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::table::Table;

/// Who called, by certificate; Envoy's name and form.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// The version that served.
pub const VERSION: HeaderName = HeaderName::from_static("x-weir-version");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers that belong to one connection (RFC 9110 §7.6.1), and those that
/// HTTP/2 forbids (RFC 9113 §8.2.2).
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Of all headers of one request: names, values, and 32 each as HTTP/2 counts
/// them (RFC 9113 §6.5.2).
pub const LIMIT: usize = 64 * 1024;

/// Holds [`LIMIT`], which the HTTP/1.1 parser does not know.
///
/// # Errors
/// [`RouterError::HeadTooLarge`].
pub fn check_size(headers: &HeaderMap) -> Result<(), RouterError> {
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    if headers.iter().map(size).sum::<usize>() > LIMIT {
        return Err(RouterError::HeadTooLarge(LIMIT));
    }
    Ok(())
}

/// Takes away what belongs to the connection that the message came by.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            // Routing has read it; a client cannot take it back.
            if name != header::HOST {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    // HTTP/2 allows `te: trailers` alone, and gRPC wants it.
    if let Some(te) = headers.get(header::TE)
        && te != "trailers"
    {
        let trailers = te.to_str().is_ok_and(|te| {
            te.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        });
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Makes a request fit to be sent on: hop-by-hop headers and claims of identity
/// go (invariant 3); at the gateway, who sent it is added.
pub fn forwarded(parts: &mut request::Parts, connected: &Connected) {
    let headers = &mut parts.headers;
    strip_hop_by_hop(headers);
    headers.remove(CLIENT_CERT);
    // Answered on each hop by the server that reads the body (RFC 9110 §10.1.1).
    headers.remove(header::EXPECT);
    if connected.side != Side::Gateway {
        return;
    }
    headers.remove(VERSION);
    let mut from = connected.peer_address.ip().to_string();
    if let Some(before) = headers.get(FORWARDED_FOR).and_then(|value| value.to_str().ok()) {
        from = format!("{before}, {from}");
    }
    if let Ok(value) = from.parse() {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.remove(FORWARDED_HOST);
    // In the order in which routing looks.
    let authority = parts.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    if let Some(host) = authority.or_else(|| headers.get(header::HOST).cloned()) {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Applies header modifiers in the Gateway API's order.
pub fn modify(headers: &mut HeaderMap, modifiers: &[HeaderModifier]) {
    for modifier in modifiers {
        for (name, value) in &modifier.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &modifier.add {
            headers.append(name, value.clone());
        }
        for name in &modifier.remove {
            headers.remove(name);
        }
    }
}

/// Tells the outside which version served, where the mesh is set to.
pub fn reveal<B>(response: &mut Response<B>, connected: &Connected, table: &Table, call: &Call) {
    if connected.side == Side::Gateway
        && table.options.show_version
        && let Some(version) = call.version()
        && let Ok(value) = HeaderValue::from_str(version.as_str())
    {
        response.headers_mut().insert(VERSION, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_headers_holds() {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", "1".repeat(LIMIT - 40).parse().unwrap());
        assert!(check_size(&headers).is_ok());
        headers.insert("x-b", "1".parse().unwrap());
        assert!(check_size(&headers).is_err());
    }

    #[test]
    fn what_connection_names_goes_and_trailers_stay_wanted() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, "close, x-private".parse().unwrap());
        headers.insert("x-private", "1".parse().unwrap());
        headers.insert("x-kept", "1".parse().unwrap());
        headers.insert(header::TE, "deflate, Trailers".parse().unwrap());
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers[header::TE], "trailers");
        assert!(headers.contains_key("x-kept"));
    }
}
