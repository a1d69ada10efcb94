//! Backend and version: by weight, unless the user is already somewhere.

use std::fmt::Write as _;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Response, header};
use weir_mesh::model::Sticky;

use crate::table::{Action, Backend, point};
use crate::worker::Worker;

/// The version that a request goes to.
pub struct Choice {
    /// Index into the service's versions.
    pub version: usize,
    /// False when the route names the version: then no other may answer.
    pub may_fall_over: bool,
    cookie: Option<HeaderValue>,
}

/// The rule's backend for the next request.
pub fn backend<'a>(worker: &Rc<Worker>, action: &'a Action) -> &'a Backend {
    let index = match action.backends.len() {
        1 => 0,
        _ => worker.next_of(&action.splitter),
    };
    &action.backends[index]
}

/// The backend's version for a request with these headers.
pub fn version(worker: &Rc<Worker>, backend: &Backend, headers: &HeaderMap) -> Choice {
    let service = &backend.service;
    if let Some(version) = backend.version {
        return Choice { version, may_fall_over: false, cookie: None };
    }
    let sticky = service.sticky.as_ref();
    let (place, cookie) = match sticky.map(|sticky| (sticky, key(sticky, headers))) {
        None => (None, None),
        Some((_, Some(place))) => (Some(place), None),
        Some((Sticky::Cookie(name), None)) => {
            let value = format!("{:016x}", fastrand::u64(..));
            (Some(point(value.as_bytes())), set_cookie(name, &value))
        }
        Some((_, None)) => (None, None),
    };
    let version = match place {
        Some(place) => service.splitter.sticky(place),
        None if service.versions.len() == 1 => 0,
        None => worker.next_of(&service.splitter),
    };
    Choice { version, may_fall_over: true, cookie }
}

impl Choice {
    /// Adds the cookie by which the user is known from now on.
    pub fn set_cookie<B>(self, response: &mut Response<B>) {
        if let Some(cookie) = self.cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
}

/// The place on the line of whoever sent this, if they can be told apart.
pub fn key(sticky: &Sticky, headers: &HeaderMap) -> Option<u64> {
    match sticky {
        Sticky::Header(name) => headers.get(name).map(|value| point(value.as_bytes())),
        Sticky::Cookie(name) => cookie(headers, name).map(|value| point(value.as_bytes())),
        Sticky::User => subject(headers).map(|subject| point(subject.as_bytes())),
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // HTTP/2 may send one header for each cookie (RFC 9113 §8.2.3).
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn set_cookie(name: &str, value: &str) -> Option<HeaderValue> {
    let mut text = String::with_capacity(name.len() + 64);
    write!(text, "{name}={value}; Path=/; HttpOnly; SameSite=Lax").ok()?;
    text.parse().ok()
}

/// The `sub` claim of the bearer token (RFC 7519 §4.1.2), not verified.
fn subject(headers: &HeaderMap) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Claims {
        sub: String,
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Claims>(&payload).ok().map(|claims| claims.sub)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_the_subject_of_the_token() {
        let mut headers = HeaderMap::new();
        assert_eq!(subject(&headers), None);
        let token =
            format!("Bearer e30.{}.sig", URL_SAFE_NO_PAD.encode(r#"{"sub":"u-7","exp":1}"#));
        headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        assert_eq!(subject(&headers).unwrap(), "u-7");
        headers.insert(header::AUTHORIZATION, "Bearer opaque".parse().unwrap());
        assert_eq!(subject(&headers), None);
    }

    #[test]
    fn a_cookie_is_found_among_others_and_in_several_headers() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; weir=xyz".parse().unwrap());
        headers.append(header::COOKIE, "b=2".parse().unwrap());
        assert_eq!(cookie(&headers, "weir"), Some("xyz"));
        assert_eq!(cookie(&headers, "b"), Some("2"));
        assert_eq!(cookie(&headers, "c"), None);
    }
}
