//! Versions that a chain of calls has got, carried along in W3C Baggage
//! (`weir.dev/pin-versions`): `weir.version=products:v2/users:v1`.
//!
//! One member for all services, as libraries keep one member of a name.

use http::{HeaderMap, HeaderName, HeaderValue};
use weir_mesh::model::ServiceName;

/// W3C Baggage.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const KEY: &str = "weir.version";
/// W3C Baggage §3.3.2: what every party must pass on; more may get lost.
const MEMBERS: usize = 64;
const BYTES: usize = 8192;

/// All members of a request, whole and without space around them.
fn members(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let texts = headers.get_all(BAGGAGE).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

fn is_ours(member: &str) -> bool {
    member.split('=').next().is_some_and(|key| key.trim() == KEY)
}

/// What our member says, decoded.
fn pins(headers: &HeaderMap) -> Option<String> {
    let member = members(headers).find(|member| is_ours(member))?;
    let value = member.split_once('=')?.1;
    let value = value.split(';').next().unwrap_or_default().trim();
    // Libraries may have escaped what needs it not.
    Some(value.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/"))
}

fn of_service<'a>(pins: &'a str, service: &ServiceName) -> Option<&'a str> {
    let mut each = pins.split('/').filter_map(|pin| pin.split_once(':'));
    each.find(|(name, _)| *name == service.as_str()).map(|(_, version)| version)
}

/// Whether the chain is pinned.
#[must_use]
pub fn is_pinned(headers: &HeaderMap) -> bool {
    headers.contains_key(BAGGAGE) && members(headers).any(is_ours)
}

/// The version of a service that the chain has got.
#[must_use]
pub fn version(headers: &HeaderMap, service: &ServiceName) -> Option<String> {
    of_service(&pins(headers)?, service).map(str::to_owned)
}

/// Takes away what the outside says of versions.
pub fn strip(headers: &mut HeaderMap) {
    // What cannot be read here may be read further in.
    if headers.get_all(BAGGAGE).iter().any(|value| value.to_str().is_err()) {
        headers.remove(BAGGAGE);
    }
    if is_pinned(headers) {
        let kept: Vec<&str> = members(headers).filter(|member| !is_ours(member)).collect();
        let kept = kept.join(",");
        set(headers, &kept);
    }
}

/// Adds a service's version, unless it is there or there is no room.
pub fn carry(headers: &mut HeaderMap, service: &ServiceName, version: &str) {
    let before = pins(headers).unwrap_or_default();
    if of_service(&before, service) == Some(version) {
        return;
    }
    let others = before.split('/').filter(|pin| {
        !pin.is_empty() && pin.split(':').next().is_some_and(|name| name != service.as_str())
    });
    let own = format!("{service}:{version}");
    let pins = others.chain([&*own]).collect::<Vec<_>>().join("/");
    let ours = format!("{KEY}={pins}");
    let mut all: Vec<&str> = members(headers).filter(|member| !is_ours(member)).collect();
    all.push(&ours);
    let bytes = all.iter().map(|member| member.len() + 1).sum::<usize>() - 1;
    if all.len() <= MEMBERS && bytes <= BYTES {
        let all = all.join(",");
        set(headers, &all);
    }
}

fn set(headers: &mut HeaderMap, text: &str) {
    match HeaderValue::from_str(text) {
        Ok(value) if !text.is_empty() => drop(headers.insert(BAGGAGE, value)),
        _ => drop(headers.remove(BAGGAGE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(BAGGAGE, value.parse().unwrap());
        }
        headers
    }

    fn service(name: &str) -> ServiceName {
        name.parse().unwrap()
    }

    #[test]
    fn versions_are_read_beside_what_others_carry() {
        let headers = with(&["a=b;p=1, weir.version=products:v2/users:v1 ;x", "c=d"]);
        assert_eq!(version(&headers, &service("users")).unwrap(), "v1");
        assert_eq!(version(&headers, &service("products")).unwrap(), "v2");
        assert_eq!(version(&headers, &service("auth")), None);
        assert_eq!(version(&with(&["weir.version=a%3Av2%2Fb%3av3"]), &service("b")).unwrap(), "v3");
        assert!(!is_pinned(&with(&["weir.versions=a:b"])));
    }

    #[test]
    fn versions_are_added_and_stripped() {
        let mut headers = with(&["a=b", "c=d;e"]);
        carry(&mut headers, &service("users"), "v1");
        carry(&mut headers, &service("products"), "v2");
        carry(&mut headers, &service("users"), "v3");
        assert_eq!(headers[BAGGAGE], "a=b,c=d;e,weir.version=products:v2/users:v3");
        strip(&mut headers);
        assert_eq!(headers[BAGGAGE], "a=b,c=d;e");
        let mut headers = with(&["weir.version=users:v1", "weir.version=users:v2"]);
        strip(&mut headers);
        assert!(!headers.contains_key(BAGGAGE));
    }

    #[test]
    fn what_others_carry_is_not_pushed_out() {
        let full = vec!["a=b"; MEMBERS].join(",");
        let mut headers = with(&[&full]);
        carry(&mut headers, &service("users"), "v1");
        assert_eq!(headers[BAGGAGE], full);
        let long = format!("a={}", "b".repeat(BYTES - 10));
        let mut headers = with(&[&long]);
        carry(&mut headers, &service("users"), "v1");
        assert_eq!(headers[BAGGAGE], long);
    }
}
