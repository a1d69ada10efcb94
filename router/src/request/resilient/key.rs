//! What a request is hashed by.

use http::request;
use weir_mesh::policy::traffic::HashOn;

use super::Call;
use crate::request::choose;
use crate::table::{ServiceEntry, point};

/// The place of a request on the ring: of the first thing that it has.
pub(super) fn of(service: &ServiceEntry, parts: &request::Parts, call: &Call) -> Option<u64> {
    let hash_on = &service.traffic.policy.load_balancer.hash_on;
    hash_on.iter().find_map(|what| match what {
        HashOn::Header(name) => parts.headers.get(name).map(|value| point(value.as_bytes())),
        HashOn::Cookie(name) => {
            choose::cookie(&parts.headers, name).map(|value| point(value.as_bytes()))
        }
        HashOn::QueryParam(name) => {
            query(parts.uri.query()?, name).map(|value| point(value.as_bytes()))
        }
        HashOn::SourceIp => Some(point(call.peer_ip().to_canonical().to_string().as_bytes())),
        HashOn::Subject => choose::subject(&parts.headers).map(|sub| point(sub.as_bytes())),
    })
}

fn query<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_query_parameter_is_found_by_its_whole_name() {
        assert_eq!(super::query("xa=1&a=2&a=3", "a"), Some("2"));
        assert_eq!(super::query("ab=1", "a"), None);
        assert_eq!(super::query("a", "a"), Some(""));
    }
}
