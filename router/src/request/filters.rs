//! What a rule's filters do to a request and its answer.

use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Response, StatusCode, Uri, header, request};
use weir_mesh::model::{PathModifier, Redirect, Rewrite, Scheme};

use super::answer::DownBody;
use super::headers;
use crate::table::Filters;

/// The answer of a redirect, if there is one.
#[inline]
pub fn redirect(filters: Option<&Filters>, request: &request::Parts) -> Option<Response<DownBody>> {
    let filters = filters?;
    redirected(filters, filters.redirect.as_ref()?, request)
}

fn redirected(
    filters: &Filters,
    redirect: &Redirect,
    request: &request::Parts,
) -> Option<Response<DownBody>> {
    let mut response = Response::new(DownBody::empty());
    *response.status_mut() = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND);
    if let Some(location) = location(redirect, filters.prefix, request)
        && let Ok(location) = HeaderValue::try_from(location)
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    headers::modify(response.headers_mut(), &filters.response_headers);
    Some(response)
}

/// Scheme, host and port that the client used stay where the filter names none.
/// A port that the scheme implies is not written.
fn location(redirect: &Redirect, prefix: usize, request: &request::Parts) -> Option<String> {
    let authority = authority(request)?;
    let host = redirect.hostname.as_deref().unwrap_or(authority.host());
    // What the gateway says of the client's connection; inside, all is plaintext.
    let https = request.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let own = if https { Scheme::Https } else { Scheme::Http };
    let scheme = redirect.scheme.unwrap_or(own);
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => port.get(),
        (None, Some(scheme)) => scheme.port(),
        (None, None) => authority.port_u16().unwrap_or(own.port()),
    };
    let mut location = format!("{}://{host}", scheme.as_str());
    if port != scheme.port() {
        location.push_str(&format!(":{port}"));
    }
    location.push_str(&path(redirect.path.as_ref(), prefix, request.uri.path()));
    if let Some(query) = request.uri.query() {
        location.push('?');
        location.push_str(query);
    }
    Some(location)
}

/// `:authority` before `Host`, as routing looks.
fn authority(request: &request::Parts) -> Option<Authority> {
    if let Some(authority) = request.uri.authority() {
        return Some(authority.clone());
    }
    request.headers.get(header::HOST)?.as_bytes().try_into().ok()
}

/// The Gateway API's table of modified paths: the rule's prefix goes, what comes
/// after it stays, and there is always a path.
fn path(modifier: Option<&PathModifier>, prefix: usize, path: &str) -> String {
    match modifier {
        None => path.to_owned(),
        Some(PathModifier::Full(path)) => path.to_string(),
        Some(PathModifier::Prefix(with)) => {
            let rest = path.get(prefix..).unwrap_or_default();
            match (with.is_empty(), rest.is_empty()) {
                (true, true) => "/".to_owned(),
                _ => format!("{with}{rest}"),
            }
        }
    }
}

/// Changes a request before it goes on.
pub fn request(filters: Option<&Filters>, parts: &mut request::Parts) {
    let Some(filters) = filters else { return };
    headers::modify(&mut parts.headers, &filters.request_headers);
    if let Some(rewrite) = &filters.rewrite {
        self::rewrite(rewrite, filters.prefix, parts);
    }
}

fn rewrite(rewrite: &Rewrite, prefix: usize, parts: &mut request::Parts) {
    let mut uri = parts.uri.clone().into_parts();
    if rewrite.path.is_some() {
        let old = uri.path_and_query.as_ref();
        let mut new = path(rewrite.path.as_ref(), prefix, old.map_or("/", PathAndQuery::path));
        if let Some(query) = old.and_then(PathAndQuery::query) {
            new.push('?');
            new.push_str(query);
        }
        if let Ok(new) = new.parse() {
            uri.path_and_query = Some(new);
        }
    }
    if let Some(hostname) = &rewrite.hostname {
        if uri.authority.is_some()
            && let Ok(authority) = hostname.parse()
        {
            uri.authority = Some(authority);
        }
        if parts.headers.contains_key(header::HOST)
            && let Ok(host) = HeaderValue::from_str(hostname)
        {
            parts.headers.insert(header::HOST, host);
        }
    }
    if let Ok(uri) = Uri::from_parts(uri) {
        parts.uri = uri;
    }
}

/// Changes an answer before it goes back.
pub fn response<B>(filters: Option<&Filters>, response: &mut Response<B>) {
    if let Some(filters) = filters {
        headers::modify(response.headers_mut(), &filters.response_headers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modified(path: &str, prefix: &str, with: &str) -> String {
        let with = PathModifier::Prefix(with.trim_end_matches('/').into());
        super::path(Some(&with), prefix.trim_end_matches('/').len(), path)
    }

    #[test]
    fn prefixes_are_replaced_as_the_gateway_api_lists_it() {
        for (path, prefix, with, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
            ("/", "/", "/xyz", "/xyz/"),
            ("/a%2Fb/c", "/a%2Fb", "/x", "/x/c"),
        ] {
            assert_eq!(modified(path, prefix, with), expected, "{path} {prefix} {with}");
        }
    }

    fn redirected(redirect: Redirect, uri: &str, host: Option<&str>) -> String {
        let mut request = http::Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        location(&redirect, "/old".len(), &request.body(()).unwrap().into_parts().0).unwrap()
    }

    fn to() -> Redirect {
        Redirect { scheme: None, hostname: None, path: None, port: None, status: 302 }
    }

    #[test]
    fn a_location_names_a_port_only_where_it_must() {
        let port = std::num::NonZeroU16::new;
        let https = Some(Scheme::Https);
        let asked = |redirect| redirected(redirect, "/old/x?a=b", Some("shop.test:8080"));
        assert_eq!(asked(to()), "http://shop.test:8080/old/x?a=b");
        assert_eq!(asked(Redirect { scheme: https, ..to() }), "https://shop.test/old/x?a=b");
        let explicit = Redirect { scheme: https, port: port(8443), ..to() };
        assert_eq!(asked(explicit), "https://shop.test:8443/old/x?a=b");
        assert_eq!(asked(Redirect { port: port(80), ..to() }), "http://shop.test/old/x?a=b");
        assert_eq!(asked(Redirect { port: port(443), ..to() }), "http://shop.test:443/old/x?a=b");
        let explicit = Redirect { scheme: https, port: port(443), ..to() };
        assert_eq!(asked(explicit), "https://shop.test/old/x?a=b");
        let elsewhere = Redirect {
            hostname: Some("new.test".into()),
            path: Some(PathModifier::Prefix("/new".into())),
            ..to()
        };
        assert_eq!(asked(elsewhere), "http://new.test:8080/new/x?a=b");
        assert_eq!(redirected(to(), "http://[::1]:81/old", Some("x")), "http://[::1]:81/old");
        assert_eq!(redirected(to(), "/old", Some("shop.test")), "http://shop.test/old");
    }

    #[test]
    fn a_rewrite_keeps_the_query_and_changes_each_form_of_the_host() {
        let rewrite = Rewrite {
            hostname: Some("new.test".into()),
            path: Some(PathModifier::Full("/all".into())),
        };
        let request =
            http::Request::builder().uri("http://a.test:80/x?y=z").header("host", "a.test");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        super::rewrite(&rewrite, 0, &mut parts);
        assert_eq!(parts.uri, "http://new.test/all?y=z");
        assert_eq!(parts.headers[header::HOST], "new.test");
        let request = http::Request::builder().uri("/x").header("host", "a.test:81");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        super::rewrite(&rewrite, 0, &mut parts);
        assert_eq!(
            (parts.uri, parts.headers[header::HOST].as_bytes()),
            (Uri::from_static("/all"), &b"new.test"[..])
        );
    }
}
