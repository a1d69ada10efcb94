//! What is told of a request. Field names are stable: programs read them.

use http::Request;
use serde::Serialize;
use weir_mesh::model::{Parent, RouteKind};

use super::doing::Doing;
use super::order::Candidate;
use super::verdict::Verdict;
use super::{Caller, TOLD, wants};
use crate::error::RouterError;
use crate::request::target;

/// The whole story of one request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `gateway`, or the service that asks; empty when it is any.
    pub from: String,
    /// Of the request.
    pub method: String,
    /// Of the request, lower-case, without port.
    pub host: String,
    /// Of the request, without query, as it was asked for.
    pub path: String,
    /// What routes and policies are matched with, and what is sent on unless a
    /// filter rewrites it; null: the request is refused.
    pub canonical_path: Option<String>,
    /// Whose routes are asked: `Gateway/gateway`, `Service/products`. Null: there
    /// is no such service.
    pub parent: Option<String>,
    /// Matches that go before the one that takes it, in order of precedence, and
    /// that one.
    pub tried: Vec<Tried>,
    /// Matches of other hosts and paths that are not among `tried`.
    pub not_told: usize,
    /// Null: no route takes it. A service without routes takes it itself.
    pub matched: Option<Matched>,
    /// The route label of metrics and access log; empty: there is none.
    pub label: String,
    /// Set when the router answers itself with an error, or by a direct response.
    pub answer: Option<Answer>,
    /// Set when a filter sends the client elsewhere.
    pub redirect: Option<Redirected>,
    /// CORS answers: the request is a preflight.
    pub preflight: bool,
    /// It is for no service, and egress decides whether it leaves the mesh.
    pub outside: bool,
    /// The rule's document, as the Gateway API has it; null without a route.
    pub rule: serde_json::Value,
    /// What the rule does beside forwarding.
    #[serde(flatten)]
    pub does: Doing,
    /// In the rule's order.
    pub backends: Vec<BackendTold>,
    /// The version that this very request gets; null: by weight, as its turn is.
    pub gets: Option<GetsTold>,
    /// Policies that hold, outermost first.
    pub policies: Vec<PolicyTold>,
    /// What authorization says where it is asked, in order; empty: nowhere.
    pub verdicts: Vec<Verdict>,
    /// The request as it is sent on.
    pub upstream: Option<Upstream>,
}

/// One match that was asked.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    /// The route.
    pub route: String,
    /// From 0.
    pub rule: usize,
    /// From 0.
    #[serde(rename = "match")]
    pub index: usize,
    /// The route's host name; null: every host.
    pub hostname: Option<String>,
    /// What it wants, in one line.
    pub wants: String,
    /// `host`, `path`, `method`, `header`, `query`: what differs; null: it takes it.
    pub differs: Option<&'static str>,
    /// In words; null: it takes it.
    pub why: Option<String>,
}

/// The match that takes a request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Matched {
    /// `HTTPRoute` or `GRPCRoute`.
    pub kind: &'static str,
    /// The route.
    pub route: String,
    /// From 0.
    pub rule: usize,
    /// May be empty.
    pub rule_name: String,
    /// From 0.
    #[serde(rename = "match")]
    pub index: usize,
    /// What it wants, in one line.
    pub wants: String,
}

/// An answer of the router's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// gRPC status, to a client that speaks it.
    pub grpc_status: u8,
    /// Response flag of the access log.
    pub flag: &'static str,
    /// In words.
    pub error: String,
}

/// Where a client is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirected {
    /// HTTP status.
    pub status: u16,
    /// `Location`.
    pub location: String,
}

/// The version that a request gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GetsTold {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// What decides: `forced` (the request names it), `pinned` (its chain of
    /// calls has it), `audience`, `session`, `sticky`, `named` (by the route), or `only`
    /// (there is no other).
    pub by: &'static str,
}

/// A share of a rule's requests.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTold {
    /// The service.
    pub service: String,
    /// The version that the route names; null: by the service's split.
    pub version: Option<String>,
    /// Why it cannot be used: its share is answered 500.
    pub invalid: Option<String>,
    /// Its weight.
    pub weight: u32,
    /// 0 to 100, of the rule's requests.
    pub share_percent: f64,
    /// What keeps a user on a version.
    pub sticky: Option<StickyTold>,
    /// The version that such a request gets of it; null: by weight.
    pub gets: Option<String>,
    /// In the order of the split.
    pub versions: Vec<VersionTold>,
    /// Who gets a version of it whatever the weights, in order.
    pub audiences: Vec<AudienceTold>,
    /// Where copies go, from the service itself.
    pub mirror: Option<OwnMirrorTold>,
}

/// Who gets a version whatever the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AudienceTold {
    /// In words.
    pub who: String,
    /// What it gets.
    pub version: String,
    /// Whether the request is of it; null: that hinges on claims of its token.
    pub takes: Option<bool>,
}

/// Copies of a service's requests to one of its versions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnMirrorTold {
    /// Which.
    pub version: String,
    /// 0 to 100, of requests that go to other versions.
    pub percent: f64,
}

/// Stickiness.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StickyTold {
    /// By what.
    pub by: String,
    /// Whether the request has it.
    pub known: bool,
}

/// One version of a backend.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionTold {
    /// Its name.
    pub version: String,
    /// In the service's split.
    pub weight: u32,
    /// 0 to 100, of requests like this one to this backend.
    pub share_percent: f64,
    /// So few instances are healthy that all of them get requests.
    pub panic: bool,
    /// Where it runs.
    pub instances: Vec<InstanceTold>,
}

/// One instance.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceTold {
    /// Its id.
    pub id: String,
    /// Where it is reached.
    pub address: String,
    /// `mTLS` or `plain`.
    pub by: &'static str,
    /// May be empty.
    pub zone: String,
    /// What health checks say.
    pub healthy: bool,
}

/// A policy that holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTold {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it is attached to.
    pub target: String,
    /// Of a BackendTrafficPolicy, what it says, as it was written; null for others,
    /// which are told by what they do.
    pub spec: serde_json::Value,
}

/// A request as it is sent on.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// The backend that it is told for: the one that the request goes to, or, while
    /// that depends on turns, the one that gets most.
    pub backend: String,
    /// Its method.
    pub method: String,
    /// Its host and port.
    pub authority: String,
    /// With the query.
    pub path: String,
    /// Names and values; secrets are not shown.
    pub headers: Vec<(String, String)>,
    /// Names of headers that were added or changed on the way.
    pub added: Vec<String>,
    /// Names of headers that were taken away.
    pub removed: Vec<String>,
    /// What else happens to it.
    pub notes: Vec<String>,
}

impl Answer {
    /// What a client is told of an error.
    pub(super) fn of(error: &RouterError) -> Self {
        Self {
            status: error.status().as_u16(),
            grpc_status: error.grpc_code(),
            flag: error.flag(),
            error: error.to_string(),
        }
    }
}

/// A parent as it is told.
pub(super) fn parent(parent: &Parent) -> String {
    match parent {
        Parent::Gateway => "Gateway/gateway".to_owned(),
        Parent::Listener(id) => format!("Listener/{id}"),
        Parent::Service(name) => format!("Service/{name}"),
        Parent::Consumer { service, namespace } => format!("Service/{service} from {namespace}"),
    }
}

impl Explanation {
    /// Nothing is known yet but the request.
    pub(super) fn of(caller: &Caller, request: &Request<()>) -> Self {
        let host = target::host(request).unwrap_or_default().to_ascii_lowercase();
        Self {
            from: match caller {
                Caller::Gateway => "gateway".to_owned(),
                Caller::Service(name) => name.as_ref().map(ToString::to_string).unwrap_or_default(),
            },
            method: request.method().to_string(),
            host,
            path: request.uri().path().to_owned(),
            canonical_path: None,
            parent: None,
            tried: Vec::new(),
            not_told: 0,
            matched: None,
            label: String::new(),
            answer: None,
            redirect: None,
            preflight: false,
            outside: false,
            rule: serde_json::Value::Null,
            does: Doing::default(),
            backends: Vec::new(),
            gets: None,
            policies: Vec::new(),
            verdicts: Vec::new(),
            upstream: None,
        }
    }

    /// Tells the candidates up to the one that takes the request. `label` is what
    /// the matcher found: it is right, whatever the candidates say.
    pub(super) fn tell_candidates(
        &mut self,
        candidates: &[Candidate<'_>],
        request: &Request<()>,
        label: Option<&str>,
    ) {
        let mut tried = Vec::new();
        for candidate in candidates {
            let why = candidate.why_not(&self.host, request);
            let takes = why.is_none()
                && label.is_none_or(|label| {
                    label == format!("{}/{}", candidate.route.name, candidate.rule)
                });
            let near = why.as_ref().is_none_or(wants::Why::is_near);
            tried.push((near, one(candidate, why.as_ref())));
            if takes {
                self.matched = Some(matched(candidate));
                break;
            }
        }
        // Of many, those that all but took it say most.
        let all = tried.len();
        if all > TOLD {
            tried.retain(|(near, _)| *near);
            let past = tried.len().saturating_sub(TOLD);
            tried.drain(..past);
        }
        self.not_told = all - tried.len();
        self.tried = tried.into_iter().map(|(_, tried)| tried).collect();
    }
}

fn one(candidate: &Candidate<'_>, why: Option<&wants::Why>) -> Tried {
    Tried {
        route: candidate.route.name.to_string(),
        rule: candidate.rule,
        index: candidate.index,
        hostname: candidate.host.map(ToString::to_string),
        wants: wants::text(candidate.wants),
        differs: why.map(wants::Why::part),
        why: why.map(ToString::to_string),
    }
}

fn matched(candidate: &Candidate<'_>) -> Matched {
    let rule = candidate.route.rules.get(candidate.rule);
    Matched {
        kind: match candidate.route.kind {
            RouteKind::Http => "HTTPRoute",
            RouteKind::Grpc => "GRPCRoute",
        },
        route: candidate.route.name.to_string(),
        rule: candidate.rule,
        rule_name: rule.map(|rule| rule.name.to_string()).unwrap_or_default(),
        index: candidate.index,
        wants: wants::text(candidate.wants),
    }
}
