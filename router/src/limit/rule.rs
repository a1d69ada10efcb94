//! One limit: which requests it counts, and by what key.

use std::hash::{BuildHasher as _, Hash as _, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Instant;

use aws_lc_rs::digest::{Context, SHA256};
use http::request::Parts;
use weir_mesh::policy::rate_limit::{KeyPart, LimitMode, LimitRule, OnFailure};
use weir_mesh::telemetry::metrics::{Counter, Registry};

use super::local::{Counts, Rate, Verdict};
use super::store::Client;
use crate::auth::VerifiedClaims;
use crate::connection::Connected;

/// One limit, and what is counted for it.
pub struct Rule {
    /// Of the policy.
    pub policy: Arc<str>,
    /// `policy/rule`.
    pub label: Arc<str>,
    /// As it was written.
    pub rule: LimitRule,
    /// What a limit that is used up means.
    pub mode: LimitMode,
    /// What holds while the store cannot be asked.
    pub on_failure: OnFailure,
    /// Whom to ask; none: this process counts alone.
    pub store: Option<Arc<Client>>,
    /// What this process counts: alone, or for when the store is away.
    pub(super) counts: Arc<Counts>,
    pub(super) rate: Rate,
    pub(super) hasher: foldhash::quality::RandomState,
    pub(super) counters: OnceLock<Counters>,
}

/// A rule where it holds.
#[derive(Clone)]
pub struct Attachment {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Only for what enters by the gateway.
    pub gateway_only: bool,
}

/// What is counted of a rule's decisions.
pub(super) struct Counters {
    allowed: Counter,
    refused: Counter,
    audited: Counter,
}

/// What a decision was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Let through.
    Allowed,
    /// Refused.
    Refused,
    /// Let through, because the policy only reports.
    Audited,
}

impl Rule {
    /// Whether it counts this request.
    #[must_use]
    pub fn counts(&self, parts: &Parts) -> bool {
        self.rule.matches.matches(&parts.method, parts.uri.path(), &parts.headers)
    }

    /// Counts a request in this process.
    #[must_use]
    pub fn take(&self, connected: &Connected, parts: &Parts) -> Verdict {
        let mut hasher = self.hasher.build_hasher();
        for part in &self.rule.key {
            feed(part, connected, parts, &mut |value| value.hash(&mut hasher));
        }
        self.counts.take(self.rate, hasher.finish(), now(), self.rule.cost.get())
    }

    /// The name of this request's count in the store. What the key consists of
    /// cannot be read from it: it may be a secret. The braces keep it on one
    /// node of a cluster.
    #[must_use]
    pub fn store_key(&self, connected: &Connected, parts: &Parts) -> String {
        let mut digest = Context::new(&SHA256);
        // Other numbers are another count.
        digest.update(&self.rule.requests.get().to_be_bytes());
        digest.update(&self.rule.per.as_millis().to_be_bytes());
        for part in &self.rule.key {
            feed(part, connected, parts, &mut |value| match value {
                None => digest.update(&[0; 8]),
                Some(bytes) => {
                    digest.update(&(bytes.len() as u64 + 1).to_be_bytes());
                    digest.update(bytes);
                }
            });
        }
        let digest = digest.finish();
        let mut key = format!("weir:rl:{{{}:", self.label);
        for byte in &digest.as_ref()[..16] {
            key.push_str(&format!("{byte:02x}"));
        }
        key.push('}');
        key
    }

    /// Counts what was decided.
    pub fn decided(&self, decision: Decision, registry: &Registry) {
        let counters = self.counters.get_or_init(|| self.bind(registry));
        match decision {
            Decision::Allowed => counters.allowed.inc(),
            Decision::Refused => counters.refused.inc(),
            Decision::Audited => counters.audited.inc(),
        }
    }

    fn bind(&self, registry: &Registry) -> Counters {
        let rule = [("weir_policy", &*self.policy), ("weir_rule", &*self.rule.name)];
        let decisions = |decision| {
            let help = "What rate limits decided.";
            let labels = [rule[0], rule[1], ("decision", decision)];
            registry.counter("weir.router.rate_limit.decisions", help, "", &labels)
        };
        let help = "Keys that made place for others while they were still counted.";
        let forgotten = "weir.router.rate_limit.keys.forgotten";
        registry.bind_counter(forgotten, help, "", &rule, &self.counts.forgotten);
        Counters {
            allowed: decisions("allowed"),
            refused: decisions("refused"),
            audited: decisions("audited"),
        }
    }
}

/// Nanoseconds since a moment before the first request; never 0.
fn now() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
}

/// Tells what a part of a key is in this request. All requests that lack it are
/// one key: leaving it out is no way around a limit.
fn feed(part: &KeyPart, connected: &Connected, parts: &Parts, tell: &mut dyn FnMut(Option<&[u8]>)) {
    match part {
        KeyPart::ClientIdentity => {
            tell((!connected.peer.is_empty()).then_some(connected.peer.as_bytes()));
        }
        KeyPart::SourceIp => match connected.peer_address.ip().to_canonical() {
            IpAddr::V4(ip) => tell(Some(&ip.octets())),
            // Whoever has one address of it has them all.
            IpAddr::V6(ip) => tell(Some(&ip.octets()[..8])),
        },
        KeyPart::Header(name) | KeyPart::Tenant(name) => {
            let mut values = parts.headers.get_all(name).iter();
            tell(values.next().map(http::HeaderValue::as_bytes));
            values.for_each(|value| tell(Some(value.as_bytes())));
        }
        KeyPart::Claim(name) => {
            let claims = parts.extensions.get::<VerifiedClaims>();
            match claims.and_then(|claims| claims.0.get(&**name)) {
                Some(serde_json::Value::String(text)) => tell(Some(text.as_bytes())),
                Some(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => {
                    tell(Some(value.to_string().as_bytes()));
                }
                _ => tell(None),
            }
        }
    }
}

#[cfg(test)]
mod tests;
