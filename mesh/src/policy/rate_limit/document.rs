//! A RateLimitPolicy's spec as it is written.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::{
    KeyPart, LimitMatch, LimitMode, LimitRule, MAX_RULES, OnFailure, RateLimit, Scope, Store,
};
use crate::canonical::{self, Slashes};
use crate::duration;
use crate::model::{PathMatch, ServiceName, Violations};
use crate::policy::value::DurationText;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_KEYS: u32 = 10_000;
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(20);

/// The spec of a RateLimitPolicy.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitDocument {
    /// The limits. A request has to pass all that count it.
    #[cfg_attr(feature = "gateway-api", schemars(length(min = 1, max = 16)))]
    rules: Vec<RuleDocument>,
    /// What a limit that is used up means.
    #[serde(default)]
    mode: ModeWord,
    /// What holds while the store cannot be asked.
    #[serde(default)]
    on_failure: FailureWord,
    /// Where the counts of rules with scope Global are kept.
    store: Option<StoreDocument>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
enum ModeWord {
    /// The request is refused.
    #[default]
    Enforce,
    /// The request is let through, and counted as one that would be refused.
    Audit,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
enum FailureWord {
    /// Each router holds the limit by itself.
    #[default]
    Open,
    /// Requests are refused.
    Closed,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
enum ScopeWord {
    /// Each router counts by itself.
    #[default]
    Local,
    /// All routers count together, in the store.
    Global,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleDocument {
    /// Unique in the policy: a DNS label. Answers, metrics and errors name it.
    name: String,
    /// Which requests are counted; left out: all.
    #[serde(rename = "match")]
    matches: Option<MatchDocument>,
    /// What has a count of its own; left out: all requests share one. Several
    /// parts are one key together.
    #[serde(default)]
    #[cfg_attr(feature = "gateway-api", schemars(length(max = 4)))]
    key: Vec<KeyDocument>,
    /// How many, how fast.
    limit: LimitDocument,
    /// How many requests each one counts as; 1 when it is left out.
    #[cfg_attr(feature = "gateway-api", schemars(range(min = 1, max = 1_000_000)))]
    cost: Option<u32>,
    /// Who counts.
    #[serde(default)]
    scope: ScopeWord,
    /// How many keys a router counts at a time: 10000 when it is left out.
    #[cfg_attr(feature = "gateway-api", schemars(range(min = 1, max = 1_000_000)))]
    max_keys: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitDocument {
    /// How many requests.
    #[cfg_attr(feature = "gateway-api", schemars(range(min = 1, max = 1_000_000)))]
    requests: u32,
    /// In how long: 1s to 24h.
    per: DurationText,
    /// How many may come at once; as many as `requests` when it is left out.
    #[cfg_attr(feature = "gateway-api", schemars(range(min = 1, max = 1_000_000)))]
    burst: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MatchDocument {
    /// Method, in capitals.
    method: Option<String>,
    /// Path.
    path: Option<PathDocument>,
    /// Headers that must be there with exactly this value.
    #[serde(default)]
    #[cfg_attr(feature = "gateway-api", schemars(length(max = 16)))]
    headers: Vec<HeaderDocument>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PathDocument {
    /// How the path is compared.
    #[serde(default, rename = "type")]
    kind: PathWord,
    /// Begins with a slash.
    value: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
enum PathWord {
    /// This path or anything below it, by segment.
    #[default]
    PathPrefix,
    /// This path.
    Exact,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HeaderDocument {
    /// The header's name.
    name: String,
    /// The value that it must have.
    value: String,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum KeyDocument {
    /// The SPIFFE id that the caller's certificate proves.
    ClientIdentity,
    /// The address that the connection came from.
    #[serde(rename = "sourceIP")]
    SourceIp,
    /// The value of this header.
    Header(String),
    /// The value of this header, which names the tenant.
    Tenant(String),
    /// This claim of a token that was verified.
    Claim(String),
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoreDocument {
    /// `redis://HOST:PORT`, also with `/DATABASE` and `USER@`. Never with a
    /// password.
    url: String,
    /// The environment variable of each router that holds the password.
    password_env: Option<String>,
    /// For one answer: 1ms to 1s; 20ms when it is left out.
    timeout: Option<DurationText>,
}

impl RateLimitDocument {
    /// None only after noting why.
    pub(super) fn read(self, at: &str, bad: &mut Violations) -> Option<RateLimit> {
        let at_rules = format!("{at}.rules");
        let count = self.rules.len();
        if count == 0 || count > MAX_RULES {
            bad.add(&at_rules, format_args!("has {count} entries; 1 to {MAX_RULES} are possible"));
        }
        let mut rules: Vec<LimitRule> = Vec::with_capacity(count);
        for (i, rule) in self.rules.into_iter().enumerate() {
            let at = format!("{at_rules}[{i}]");
            let Some(rule) = rule.read(&at, bad) else { continue };
            if rules.iter().any(|other| other.name == rule.name) {
                bad.add(format!("{at}.name"), format_args!("{:?} is here twice", rule.name));
            }
            rules.push(rule);
        }
        let at_store = format!("{at}.store");
        let global = rules.iter().any(|rule| rule.scope == Scope::Global);
        let whole = rules.len() == count;
        let store = match self.store {
            None if global => {
                bad.add(&at_store, "is missing; rules with scope Global are counted there");
                return None;
            }
            Some(_) if !global && whole => {
                bad.add(&at_store, "is not used: no rule has scope Global");
                return None;
            }
            None => None,
            Some(store) => Some(store.read(&at_store, bad)?),
        };
        let mode = match self.mode {
            ModeWord::Enforce => LimitMode::Enforce,
            ModeWord::Audit => LimitMode::Audit,
        };
        let on_failure = match self.on_failure {
            FailureWord::Open => OnFailure::Open,
            FailureWord::Closed => OnFailure::Closed,
        };
        (whole && count > 0).then_some(RateLimit { rules, mode, on_failure, store })
    }
}

impl RuleDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<LimitRule> {
        let name = bad.take(&format!("{at}.name"), self.name.parse::<ServiceName>());
        let matches = match self.matches {
            None => Some(LimitMatch::default()),
            Some(matches) => matches.read(&format!("{at}.match"), bad),
        };
        let key = self.key.into_iter().enumerate();
        let key: Vec<_> = key.map(|(i, part)| part.read(&format!("{at}.key[{i}]"), bad)).collect();
        if key.is_empty() && self.max_keys.is_some() {
            bad.add(format!("{at}.maxKeys"), "is not used: the rule has no key");
        }
        let at_limit = format!("{at}.limit");
        let scope = match self.scope {
            ScopeWord::Local => Scope::Local,
            ScopeWord::Global => Scope::Global,
        };
        if scope == Scope::Global && self.limit.burst.is_some() {
            let why = "is for scope Local; a global limit never lets more than `requests` through";
            bad.add(format!("{at_limit}.burst"), why);
        }
        let requests = count(self.limit.requests, &format!("{at_limit}.requests"), bad);
        let burst = self.limit.burst.unwrap_or(self.limit.requests);
        let burst = count(burst, &format!("{at_limit}.burst"), bad)?;
        let per = self.limit.per.0;
        if !(SECOND..=DAY).contains(&per) {
            let why = format!("{} is not from 1s to 24h", duration::print(per));
            bad.add(format!("{at_limit}.per"), why);
        }
        let cost = count(self.cost.unwrap_or(1), &format!("{at}.cost"), bad)?;
        if cost > burst {
            let why = format!("{cost} is more than {burst}, the most that the limit lets through");
            bad.add(format!("{at}.cost"), why);
        }
        let key = key.into_iter().collect::<Option<Vec<_>>>()?;
        let max_keys = match key.is_empty() {
            true => 1,
            false => {
                let keys = self.max_keys.unwrap_or(DEFAULT_KEYS);
                count(keys, &format!("{at}.maxKeys"), bad)?.get()
            }
        };
        let name: Arc<str> = name?.as_str().into();
        let (matches, requests) = (matches?, requests?);
        // A burst that takes so long to come back is a mistake in a unit.
        if per * burst.get() / requests.get() > 30 * DAY {
            let why = format!("of {burst} would take more than 30 days to come back at this rate");
            bad.add(format!("{at_limit}.burst"), why);
        }
        Some(LimitRule { name, matches, key, requests, per, burst, cost, scope, max_keys })
    }
}

fn count(number: u32, at: &str, bad: &mut Violations) -> Option<NonZeroU32> {
    let found = NonZeroU32::new(number).filter(|n| n.get() <= 1_000_000);
    if found.is_none() {
        bad.add(at, format_args!("{number} is not from 1 to 1000000"));
    }
    found
}

impl MatchDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<LimitMatch> {
        let method = match self.method {
            None => None,
            Some(text) => {
                let capitals = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase());
                if !capitals {
                    let why = format!("{text:?} is no method; write it in capitals, such as GET");
                    bad.add(format!("{at}.method"), why);
                    return None;
                }
                Some(bad.take(&format!("{at}.method"), Method::from_bytes(text.as_bytes()))?)
            }
        };
        let path = match self.path {
            None => None,
            Some(path) => {
                let form = match canonical::path(&path.value, Slashes::Keep) {
                    Ok(None) => None,
                    Ok(Some(form)) => Some(format!(
                        "{:?} is not in the form that requests are brought to, so it would fit \
                         none; write {form:?}",
                        path.value
                    )),
                    Err(error) => {
                        Some(format!("{:?} can be no request's path: {error}", path.value))
                    }
                };
                if let Some(why) = form {
                    bad.add(format!("{at}.path.value"), why);
                    return None;
                }
                Some(match path.kind {
                    PathWord::Exact => PathMatch::Exact(path.value.into()),
                    PathWord::PathPrefix => {
                        PathMatch::Prefix(path.value.trim_end_matches('/').into())
                    }
                })
            }
        };
        let mut headers = Vec::with_capacity(self.headers.len());
        for (i, header) in self.headers.into_iter().enumerate() {
            let at = format!("{at}.headers[{i}]");
            let name = header_name(&header.name, &format!("{at}.name"), bad);
            let value = HeaderValue::from_str(&header.value);
            let value = bad.take(&format!("{at}.value"), value);
            headers.push(name.zip(value));
        }
        let headers = headers.into_iter().collect::<Option<Vec<_>>>()?;
        Some(LimitMatch { method, path, headers })
    }
}

impl KeyDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<KeyPart> {
        Some(match self {
            Self::ClientIdentity => KeyPart::ClientIdentity,
            Self::SourceIp => KeyPart::SourceIp,
            Self::Header(name) => {
                KeyPart::Header(header_name(&name, &format!("{at}.header"), bad)?)
            }
            Self::Tenant(name) => {
                KeyPart::Tenant(header_name(&name, &format!("{at}.tenant"), bad)?)
            }
            Self::Claim(name) if name.is_empty() || name.len() > 64 => {
                bad.add(format!("{at}.claim"), "is no claim; 1 to 64 characters, such as sub");
                return None;
            }
            Self::Claim(name) => KeyPart::Claim(name.into()),
        })
    }
}

fn header_name(text: &str, at: &str, bad: &mut Violations) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes());
    let why = |_| format!("{text:?} is no header name");
    bad.take(at, name.map_err(why))
}

impl StoreDocument {
    fn read(self, at: &str, bad: &mut Violations) -> Option<Store> {
        let url = bad.take(&format!("{at}.url"), self.url.parse());
        let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if let Some(name) = &self.password_env
            && (name.is_empty() || name.len() > 128 || !name.bytes().all(letter))
        {
            // Not repeated: someone may have put the password here.
            let why = "is no name of an environment variable; use A-Z, a-z, 0-9 and _";
            bad.add(format!("{at}.passwordEnv"), why);
        }
        let timeout = self.timeout.map_or(DEFAULT_TIMEOUT, |text| text.0);
        if timeout.is_zero() || timeout > SECOND {
            let why = format!("{} is not from 1ms to 1s", duration::print(timeout));
            bad.add(format!("{at}.timeout"), why);
        }
        Some(Store { url: url?, password_env: self.password_env.map(Into::into), timeout })
    }
}
