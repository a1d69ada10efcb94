//! Every match of every rule of one parent, in the Gateway API's order of
//! precedence.

use std::cmp::Reverse;

use http::Request;
use weir_mesh::model::{HostPattern, Parent, Route, RouteMatch};

use super::wants::{self, Why};

/// One match, for one host name of its route.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The route.
    pub route: &'a Route,
    /// None: every host.
    pub host: Option<&'a HostPattern>,
    /// The rule's place in the route, from 0.
    pub rule: usize,
    /// The match's place in the rule, from 0.
    pub index: usize,
    /// What it wants.
    pub wants: &'a RouteMatch,
}

impl Candidate<'_> {
    /// Why it does not take a request to this host (lower-case); none: it does.
    #[must_use]
    pub fn why_not(&self, host: &str, request: &Request<()>) -> Option<Why> {
        match self.host {
            Some(pattern) if !pattern.matches(host) => {
                Some(Why::Host { wanted: pattern.to_string(), found: host.to_owned() })
            }
            _ => wants::why_not(self.wants, request),
        }
    }
}

/// Where a candidate is: what outlives a borrow of its route.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    route: usize,
    host: Option<usize>,
    rule: usize,
    index: usize,
}

impl Place {
    /// The candidate at this place of the routes that it was found in.
    #[must_use]
    pub fn of<'a>(&self, routes: &'a [Route]) -> Option<Candidate<'a>> {
        let route = routes.get(self.route)?;
        Some(Candidate {
            route,
            host: self.host.and_then(|host| route.hostnames.get(host)),
            rule: self.rule,
            index: self.index,
            wants: route.rules.get(self.rule)?.matches.get(self.index)?,
        })
    }
}

/// The candidates of a parent; the first that takes a request gets it.
#[must_use]
pub fn places(routes: &[Route], parent: &Parent) -> Vec<Place> {
    let mut all = Vec::new();
    for (route, content) in routes.iter().enumerate() {
        if !content.parents.contains(parent) {
            continue;
        }
        // Host names of a route do not matter to a Service parent (GEP-1294).
        let hosts: Vec<Option<usize>> = match parent {
            Parent::Gateway | Parent::Listener(_) if !content.hostnames.is_empty() => {
                (0..content.hostnames.len()).map(Some).collect()
            }
            _ => vec![None],
        };
        for (rule, content) in content.rules.iter().enumerate() {
            for index in 0..content.matches.len() {
                all.extend(hosts.iter().map(|host| Place { route, host: *host, rule, index }));
            }
        }
    }
    all.sort_by(|a, b| match (a.of(routes), b.of(routes)) {
        (Some(a), Some(b)) => rank(&a).cmp(&rank(&b)),
        (a, b) => a.is_none().cmp(&b.is_none()),
    });
    all
}

/// Smaller goes first.
fn rank<'a>(of: &Candidate<'a>) -> impl Ord + use<'a> {
    let host = match of.host {
        Some(HostPattern::Exact(_)) => (0, Reverse(0)),
        Some(HostPattern::Suffix(name)) => (1, Reverse(name.len())),
        None => (2, Reverse(0)),
    };
    (host, wants::rank(of.route.kind, of.wants), &*of.route.name, of.rule, of.index)
}
