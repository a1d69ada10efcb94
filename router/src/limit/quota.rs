//! What clients are told of limits: `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers-10), lists of structured fields
//! (RFC 9651).

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// What a request's limits say, a list item for each.
#[derive(Debug, Default)]
pub struct Quota {
    policy: String,
    state: String,
}

impl Quota {
    /// Adds a limit: its name, how many in how long, how many are left, and until
    /// when.
    pub fn add(&mut self, name: &str, requests: u32, per: Duration, left: u64, reset: Duration) {
        for list in [&mut self.policy, &mut self.state] {
            if !list.is_empty() {
                list.push_str(", ");
            }
        }
        // Names of policies and rules are DNS names: nothing is to be escaped.
        let _ = write!(self.policy, "\"{name}\";q={requests};w={}", seconds(per));
        let _ = write!(self.state, "\"{name}\";r={left};t={}", seconds(reset));
    }

    /// Adds it to an answer, beside what others on the way have said.
    pub fn tell(&self, headers: &mut HeaderMap) {
        for (name, list) in [(POLICY, &self.policy), (STATE, &self.state)] {
            if !list.is_empty()
                && let Ok(value) = HeaderValue::from_str(list)
            {
                headers.append(name, value);
            }
        }
    }
}

/// Whole seconds, rounded up: who waits so long has waited enough.
#[must_use]
pub fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_items_of_lists() {
        let mut quota = Quota::default();
        let second = Duration::from_secs(1);
        quota.add("api/all", 100, 60 * second, 99, Duration::from_millis(600));
        quota.add("api/user", 5, second, 0, second);
        let mut headers = HeaderMap::new();
        quota.tell(&mut headers);
        assert_eq!(headers["ratelimit-policy"], r#""api/all";q=100;w=60, "api/user";q=5;w=1"#);
        assert_eq!(headers["ratelimit"], r#""api/all";r=99;t=1, "api/user";r=0;t=1"#);
    }
}
