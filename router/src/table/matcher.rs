//! Which rule takes a request, in the Gateway API's order of precedence.
//!
//! Lookups are by hash: their cost grows with the labels of the host and the
//! segments of the path, not with the number of routes.

use std::sync::Arc;

use http::{HeaderMap, Method};
use weir_mesh::model::{HostPattern, PathMatch, RouteMatch};

use super::{Action, Map};

/// What is asked about one request.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Lower-case, without port.
    pub host: &'a str,
    /// Without query.
    pub path: &'a str,
    /// Query, without `?`.
    pub query: Option<&'a str>,
    /// Method.
    pub method: &'a Method,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// All rules of one parent.
#[derive(Default)]
pub struct Matcher {
    exact_hosts: Map<Arc<str>, Paths>,
    /// By `.example.com`.
    suffix_hosts: Map<Arc<str>, Paths>,
    any_host: Paths,
    matches: usize,
}

#[derive(Default)]
struct Paths {
    exact: Map<Arc<str>, Vec<Candidate>>,
    prefix: Map<Arc<str>, Vec<Candidate>>,
}

struct Candidate {
    wants: RouteMatch,
    rank: Rank,
    action: Arc<Action>,
}

/// Smaller goes first. The parts after host and path, as the Gateway API orders
/// them: a method, then the number of headers, then of query parameters, then
/// the route's name, then the rule's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    no_method: bool,
    headers: std::cmp::Reverse<usize>,
    query: std::cmp::Reverse<usize>,
    route: Arc<str>,
    rule: usize,
}

impl Matcher {
    /// True when no rule was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matches == 0
    }

    /// Adds one match of one rule. `hosts` empty: every host.
    pub fn add(
        &mut self,
        hosts: &[HostPattern],
        wants: &RouteMatch,
        route: &Arc<str>,
        rule: usize,
        action: &Arc<Action>,
    ) {
        self.matches += 1;
        let rank = Rank {
            no_method: wants.method.is_none(),
            headers: std::cmp::Reverse(wants.headers.len()),
            query: std::cmp::Reverse(wants.query.len()),
            route: route.clone(),
            rule,
        };
        let candidate =
            || Candidate { wants: wants.clone(), rank: rank.clone(), action: action.clone() };
        if hosts.is_empty() {
            self.any_host.add(candidate());
        }
        for host in hosts {
            match host {
                HostPattern::Exact(name) => {
                    self.exact_hosts.entry(name.clone()).or_default().add(candidate());
                }
                HostPattern::Suffix(name) => {
                    self.suffix_hosts.entry(name.clone()).or_default().add(candidate());
                }
            }
        }
    }

    /// The rule that takes the request, if one does.
    #[must_use]
    pub fn find(&self, query: &Query<'_>) -> Option<&Arc<Action>> {
        if let Some(action) = self.exact_hosts.get(query.host).and_then(|p| p.find(query)) {
            return Some(action);
        }
        if !self.suffix_hosts.is_empty() {
            let dots = query.host.bytes().enumerate().filter(|(_, b)| *b == b'.');
            for (at, _) in dots.filter(|(at, _)| *at > 0) {
                let found = self.suffix_hosts.get(&query.host[at..]).and_then(|p| p.find(query));
                if found.is_some() {
                    return found;
                }
            }
        }
        self.any_host.find(query)
    }
}

impl Paths {
    fn add(&mut self, candidate: Candidate) {
        let bucket = match &candidate.wants.path {
            PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default(),
            PathMatch::Prefix(path) => self.prefix.entry(path.clone()).or_default(),
        };
        let at = bucket.partition_point(|other| other.rank <= candidate.rank);
        bucket.insert(at, candidate);
    }

    fn find(&self, query: &Query<'_>) -> Option<&Arc<Action>> {
        let take = |bucket: &'_ Vec<Candidate>| bucket.iter().position(|c| c.takes(query));
        if let Some(bucket) = self.exact.get(query.path)
            && let Some(at) = take(bucket)
        {
            return Some(&bucket[at].action);
        }
        // Longest prefix first: cut the path at its slashes from the end.
        let mut end = query.path.len();
        loop {
            if let Some(bucket) = self.prefix.get(&query.path[..end])
                && let Some(at) = take(bucket)
            {
                return Some(&bucket[at].action);
            }
            if end == 0 {
                return None;
            }
            end = query.path[..end].rfind('/').unwrap_or(0);
        }
    }
}

impl Candidate {
    fn takes(&self, query: &Query<'_>) -> bool {
        self.wants.method.as_ref().is_none_or(|method| method == query.method)
            && self.wants.headers.iter().all(|(name, value)| {
                // Of a repeated header the Gateway API matches the first.
                query.headers.get(name).is_some_and(|found| found == value)
            })
            && self.wants.query.iter().all(|(name, value)| {
                query_param(query.query.unwrap_or_default(), name).as_deref() == Some(&**value)
            })
    }
}

/// The first value of a query parameter, decoded.
pub fn query_param(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => match (hex(at + 1), hex(at + 2)) {
                (Some(high), Some(low)) => {
                    out.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
