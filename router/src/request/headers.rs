//! What is changed in headers on the way.

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, Uri, request};
use http_body::Body as _;
use weir_mesh::model::HeaderModifier;

use super::baggage;
use super::body::UpBody;
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

const HOPS: usize = 5;
/// Headers that belong to one connection (RFC 9110 §7.6.1), and those that
/// HTTP/2 forbids (RFC 9113 §8.2.2). [`strip`] knows their places.
static HOP_BY_HOP: [HeaderName; HOPS] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const CODING: usize = 3;

/// Of all headers of one request: names, values, and 32 each as HTTP/2 counts
/// them (RFC 9113 §6.5.2).
pub const LIMIT: usize = 64 * 1024;

/// Holds what HTTP/1.1's parser does not know: [`LIMIT`], and that a body is
/// framed as chunks or not at all. Another transfer coding could not be undone
/// here, and what is sent on says nothing of it (RFC 9112 §6.1).
///
/// # Errors
/// [`RouterError::HeadTooLarge`], [`RouterError::Unsupported`].
pub fn check(headers: &HeaderMap) -> Result<(), RouterError> {
    let (mut size, mut codings) = (0, 0);
    for (name, value) in headers {
        size += name.as_str().len() + value.len() + 32;
        if *name == header::TRANSFER_ENCODING {
            codings += 1;
            if codings > 1 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(RouterError::Unsupported(
                    "the only transfer coding that is understood is chunked, and only once",
                ));
            }
        }
    }
    if size > LIMIT { Err(RouterError::HeadTooLarge(LIMIT)) } else { Ok(()) }
}

/// Takes away what belongs to the connection that the message came by.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip(headers);
}

/// The same. Says whether there was one of [`CLIENT_CERT`] and `Expect`.
fn strip(headers: &mut HeaderMap) -> bool {
    // Few messages have any: one look at each header costs less than a search
    // for each of these, and most have another length than all of these.
    let mut found = [false; HOPS];
    let (mut te, mut claims) = (false, false);
    for (name, value) in &*headers {
        let hop = match name.as_str() {
            "connection" => 0,
            "keep-alive" => 1,
            "proxy-connection" => 2,
            "transfer-encoding" => CODING,
            "upgrade" => 4,
            "te" => {
                te |= value != "trailers";
                continue;
            }
            "expect" | "x-forwarded-client-cert" => {
                claims = true;
                continue;
            }
            _ => continue,
        };
        found[hop] = true;
    }
    if found[0] {
        remove_named_by_connection(headers);
    }
    for (name, _) in HOP_BY_HOP.iter().zip(found).filter(|(_, found)| *found) {
        headers.remove(name);
    }
    if found[CODING] {
        // The chunks were what counted; sent on, another length would lie (RFC 9112 §6.3).
        headers.remove(header::CONTENT_LENGTH);
    }
    if te {
        keep_te_trailers(headers);
    }
    claims
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    let only = |value: &HeaderValue| value == "keep-alive" || value == "close";
    if headers.get_all(header::CONNECTION).iter().all(only) {
        return;
    }
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

/// HTTP/2 allows `te: trailers` alone, and gRPC wants it.
fn keep_te_trailers(headers: &mut HeaderMap) {
    let Some(te) = headers.get(header::TE) else { return };
    if te == "trailers" {
        return;
    }
    let trailers = te
        .to_str()
        .is_ok_and(|te| te.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")));
    headers.remove(header::TE);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes from what comes from outside the headers by which the mesh speaks of
/// identity, before anything is decided by them.
pub fn distrust(headers: &mut HeaderMap, connected: &Connected, table: &Table) {
    // Without a certificate nobody of the mesh has sent it.
    let outside = connected.side == Side::Gateway || connected.peer.is_empty();
    if !outside || connected.side == Side::Outbound {
        return;
    }
    headers.remove(CLIENT_CERT);
    headers.remove(VERSION);
    for name in table.guards.iter().flat_map(|guards| &guards.claim_headers) {
        headers.remove(name);
    }
}

/// Makes a request fit to be sent on: hop-by-hop headers and claims of identity
/// go (invariant 3); at the gateway, who sent it is added.
pub fn forwarded(parts: &mut request::Parts, connected: &Connected) {
    let headers = &mut parts.headers;
    if strip(headers) {
        headers.remove(CLIENT_CERT);
        // Answered on each hop by the server that reads the body (RFC 9110 §10.1.1).
        headers.remove(header::EXPECT);
    }
    if connected.side != Side::Gateway {
        return;
    }
    // What the outside says of versions is not for routers inside.
    headers.remove(VERSION);
    baggage::strip(headers);
    let mut from = connected.peer_address.ip().to_string();
    if let Some(before) = headers.get(FORWARDED_FOR).and_then(|value| value.to_str().ok()) {
        from = format!("{before}, {from}");
    }
    if let Ok(value) = from.parse() {
        headers.insert(FORWARDED_FOR, value);
    }
    let scheme = if connected.tls { "https" } else { "http" };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    headers.remove(FORWARDED_HOST);
    // In the order in which routing looks.
    let authority = parts.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    if let Some(host) = authority.or_else(|| headers.get(header::HOST).cloned()) {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Gives a request the form that HTTP/1.1 wants: its target in origin form and
/// the authority in `Host` (RFC 9112 §3.2), and one `Cookie` header, of which
/// HTTP/2 may have made several (RFC 9113 §8.2.3), and how its body ends.
pub fn to_http1(uri: &mut Uri, headers: &mut HeaderMap, body: &UpBody) {
    if let Some(authority) = uri.authority() {
        let host = authority.as_str();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if let Ok(host) = host.parse() {
            headers.insert(header::HOST, host);
        }
    }
    *uri = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |p| Uri::from(p.clone()));
    // Else each header has one value.
    if headers.len() > headers.keys_len() {
        join_cookies(headers);
    }
    frame(headers, body);
}

fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let parts = [first, second].into_iter().chain(cookies).map(HeaderValue::as_bytes);
        let joined = parts.collect::<Vec<_>>().join(&b"; "[..]);
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

/// Says that a body follows whose length nobody knows: of a GET, say, HTTP/1.1
/// would else assume that there is none (RFC 9112 §6.3).
fn frame(headers: &mut HeaderMap, body: &UpBody) {
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Moves the values into an allocation of their own.
///
/// As HTTP/1.1's parser leaves them, they are slices of the buffer that was read
/// (8 KiB and more), and HPACK's table would keep such a buffer for each entry:
/// on an HTTP/2 connection that is idle, for ever.
pub fn own_values(headers: &mut HeaderMap) {
    let mut all = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    headers.values().for_each(|value| all.extend_from_slice(value.as_bytes()));
    let mut all = all.freeze();
    for value in headers.values_mut() {
        let own = HeaderValue::from_maybe_shared(all.split_to(value.len()));
        *value = own.unwrap_or_else(|_| value.clone());
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
        assert!(check(&headers).is_ok());
        headers.insert("x-b", "1".parse().unwrap());
        assert!(matches!(check(&headers), Err(RouterError::HeadTooLarge(LIMIT))));
    }

    #[test]
    fn chunked_is_the_only_coding_and_outlives_no_length() {
        let with = |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static(coding));
            }
            headers
        };
        assert!(check(&with(&[])).is_ok());
        assert!(check(&with(&["Chunked"])).is_ok());
        for wrong in [&["gzip, chunked"][..], &["chunked, chunked"], &["chunked", "chunked"]] {
            assert!(check(&with(wrong)).is_err(), "{wrong:?}");
        }
        let mut headers = with(&["chunked"]);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("99"));
        strip_hop_by_hop(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn each_hop_by_hop_header_goes_and_claims_are_told() {
        for name in &HOP_BY_HOP {
            let mut headers = HeaderMap::new();
            headers.insert(name, "x".parse().unwrap());
            headers.insert("x-kept", "1".parse().unwrap());
            assert!(!strip(&mut headers), "{name}");
            assert!(headers.len() == 1 && headers.contains_key("x-kept"), "{name}");
        }
        for name in [CLIENT_CERT, header::EXPECT] {
            assert!(strip(&mut HeaderMap::from_iter([(name, "x".parse().unwrap())])));
        }
    }

    #[test]
    fn http1_gets_origin_form_a_host_and_one_cookie_header() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "other".parse().unwrap());
        headers.append(header::COOKIE, "a=1".parse().unwrap());
        headers.append(header::COOKIE, "b=2; c=3".parse().unwrap());
        let mut uri = Uri::from_static("http://me@shop.example:81/v1/x?y=z");
        to_http1(&mut uri, &mut headers, &UpBody::Empty);
        assert_eq!(uri, "/v1/x?y=z");
        assert_eq!(headers[header::HOST], "shop.example:81");
        let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
        let mut uri = Uri::from_static("/v1/x");
        to_http1(&mut uri, &mut headers, &UpBody::Empty);
        assert_eq!(
            (uri.path(), &headers[header::HOST]),
            ("/v1/x", &"shop.example:81".parse().unwrap())
        );
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked_whatever_the_method() {
        let framed = |body: UpBody| {
            let mut headers = HeaderMap::new();
            frame(&mut headers, &body);
            headers.contains_key(header::TRANSFER_ENCODING)
        };
        assert!(!framed(UpBody::Empty));
        assert!(!framed(UpBody::Full(Some("known".into()))));
        let unknown = http_body_util::StreamBody::new(futures_util::stream::iter([Ok(
            http_body::Frame::data(bytes::Bytes::from_static(b"unknown")),
        )]));
        assert!(framed(UpBody::Mapped(Box::pin(unknown))));
    }

    #[test]
    fn values_of_their_own_are_the_same_values() {
        let mut headers = HeaderMap::new();
        for value in ["one", "", "a longer value, with \u{e4}"] {
            headers.append("x-a", HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers.insert("x-b", "last".parse().unwrap());
        let before = headers.clone();
        own_values(&mut headers);
        assert_eq!(headers, before);
        let kept = headers["x-b"].as_bytes().as_ptr();
        assert_ne!(kept, before["x-b"].as_bytes().as_ptr());
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
