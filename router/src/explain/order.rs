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

/// The candidates of a parent; the first that takes a request gets it.
#[must_use]
pub fn candidates<'a>(routes: &'a [Route], parent: &Parent) -> Vec<Candidate<'a>> {
    let mut all = Vec::new();
    for route in routes {
        for of_route in route.parents.iter().filter(|other| *other == parent) {
            // Host names of a route do not matter to a Service parent (GEP-1294).
            let hosts: Vec<_> = match of_route {
                Parent::Gateway if !route.hostnames.is_empty() => {
                    route.hostnames.iter().map(Some).collect()
                }
                _ => vec![None],
            };
            for (rule, content) in route.rules.iter().enumerate() {
                for (index, wants) in content.matches.iter().enumerate() {
                    let one =
                        |host: &Option<_>| Candidate { route, host: *host, rule, index, wants };
                    all.extend(hosts.iter().map(one));
                }
            }
        }
    }
    all.sort_by(|a, b| rank(a).cmp(&rank(b)));
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
