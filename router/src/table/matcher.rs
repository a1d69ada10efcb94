//! Which rule takes a request, in the Gateway API's order of precedence.
//!
//! Lookups are by hash: their cost grows with the labels of the host and the
//! segments of the path, not with the number of routes. Only the patterns of one
//! host are tried one after the other.

mod bucket;

use std::cmp::Reverse;
use std::sync::Arc;

use http::{HeaderMap, Method};
use weir_mesh::model::{HostPattern, PathMatch, RouteKind, RouteMatch, grpc_call};

use super::{Action, Map};
use bucket::{Bucket, Candidate};

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

/// Where a rule comes from: it decides between matches that are alike.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The route's name.
    pub route: &'a Arc<str>,
    /// Its kind.
    pub kind: RouteKind,
    /// The rule's place in it.
    pub rule: usize,
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

/// The matches of one host, by what their paths are. In the order in which
/// they are tried.
#[derive(Default)]
struct Paths {
    exact: Map<Arc<str>, Bucket>,
    /// gRPC services, by `/service`.
    services: Map<Arc<str>, Bucket>,
    /// Regular expressions of all kinds.
    patterns: Bucket,
    /// But for the empty one.
    prefix: Map<Arc<str>, Bucket>,
    /// gRPC methods of any service.
    methods: Map<Arc<str>, Bucket>,
    any_path: Bucket,
}

/// Smaller goes first. The parts after host and kind of path, as the Gateway API
/// orders them: longer patterns, a method, then the number of headers, then of
/// query parameters, then the route's name, then the rule's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    pattern: Reverse<(usize, usize)>,
    no_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    route: Arc<str>,
    rule: usize,
}

impl Rank {
    fn new(wants: &RouteMatch, origin: Origin<'_>) -> Self {
        let pattern = match &wants.path {
            PathMatch::Regex(pattern) => (pattern.as_str().len(), 0),
            PathMatch::GrpcRegex { service, method } => (
                service.as_ref().map_or(0, |p| p.as_str().len()),
                method.as_ref().map_or(0, |p| p.as_str().len()),
            ),
            // Of these, a bucket holds one length.
            PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::GrpcMethod(_) => (0, 0),
        };
        Self {
            pattern: Reverse(pattern),
            no_method: wants.method.is_none(),
            headers: Reverse(wants.headers.len()),
            query: Reverse(wants.query.len()),
            route: origin.route.clone(),
            rule: origin.rule,
        }
    }
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
        origin: Origin<'_>,
        action: &Arc<Action>,
    ) {
        self.matches += 1;
        let candidate = || Candidate::new(wants.clone(), Rank::new(wants, origin), action.clone());
        if hosts.is_empty() {
            self.any_host.add(candidate(), origin.kind);
        }
        for host in hosts {
            let paths = match host {
                HostPattern::Exact(name) => self.exact_hosts.entry(name.clone()).or_default(),
                HostPattern::Suffix(name) => self.suffix_hosts.entry(name.clone()).or_default(),
            };
            paths.add(candidate(), origin.kind);
        }
    }

    /// Ends adding: only now is it ordered.
    pub fn seal(&mut self) {
        let hosts = self.exact_hosts.values_mut().chain(self.suffix_hosts.values_mut());
        hosts.chain([&mut self.any_host]).for_each(Paths::seal);
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
    fn add(&mut self, candidate: Candidate, kind: RouteKind) {
        let bucket = match candidate.path() {
            PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default(),
            PathMatch::Regex(_) | PathMatch::GrpcRegex { .. } => &mut self.patterns,
            PathMatch::GrpcMethod(method) => self.methods.entry(method.clone()).or_default(),
            PathMatch::Prefix(path) if path.is_empty() => &mut self.any_path,
            // One segment is a service.
            PathMatch::Prefix(path) if kind == RouteKind::Grpc && !path[1..].contains('/') => {
                self.services.entry(path.clone()).or_default()
            }
            PathMatch::Prefix(path) => self.prefix.entry(path.clone()).or_default(),
        };
        bucket.add(candidate);
    }

    fn seal(&mut self) {
        let maps = [&mut self.exact, &mut self.services, &mut self.prefix, &mut self.methods];
        let hashed = maps.into_iter().flat_map(|map| map.values_mut());
        hashed.chain([&mut self.patterns, &mut self.any_path]).for_each(Bucket::seal);
    }

    fn find(&self, query: &Query<'_>) -> Option<&Arc<Action>> {
        if let Some(found) = self.exact.get(query.path).and_then(|b| b.find(query)) {
            return Some(found);
        }
        if !self.services.is_empty() {
            let end = query.path.get(1..).and_then(|rest| rest.find('/')).map(|at| at + 1);
            let service = &query.path[..end.unwrap_or(query.path.len())];
            if let Some(found) = self.services.get(service).and_then(|b| b.find(query)) {
                return Some(found);
            }
        }
        if let Some(found) = self.patterns.find(query) {
            return Some(found);
        }
        // Longest prefix first: cut the path at its slashes from the end.
        let mut end = if self.prefix.is_empty() { 0 } else { query.path.len() };
        while end > 0 {
            if let Some(found) = self.prefix.get(&query.path[..end]).and_then(|b| b.find(query)) {
                return Some(found);
            }
            end = query.path[..end].rfind('/').unwrap_or(0);
        }
        if !self.methods.is_empty()
            && let Some((_, method)) = grpc_call(query.path)
            && let Some(found) = self.methods.get(method).and_then(|b| b.find(query))
        {
            return Some(found);
        }
        self.any_path.find(query)
    }
}

#[cfg(test)]
mod tests;
