//! What a rule does beside matching and forwarding.

use std::time::Duration;

use http::{HeaderMap, Request, header};
use serde::Serialize;
use weir_mesh::duration;
use weir_mesh::model::{ForceVersion, Fraction, Names, OriginPattern, RouteFilter, RouteRule};
use weir_mesh::policy::filter::{AbortWith, Filter, Share};
use weir_mesh::policy::rate_limit::{KeyPart, LimitMode, Scope};

use crate::connection::{Connected, Side};
use crate::limit::Attachment;
use crate::request::call::grpc_timeout;
use crate::request::{choose, cors, session};
use crate::table::{Action, Session, Table};

/// What is done. Field names are stable: programs read them.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Doing {
    /// For the whole request, in milliseconds; null: unbounded.
    pub timeout_ms: Option<u64>,
    /// For each try, in milliseconds; null: as long as the whole has.
    pub backend_timeout_ms: Option<u64>,
    /// When an answer is asked for again, as the rule says it; null: the
    /// service's own way.
    pub retry: Option<RetryTold>,
    /// Which pages of other origins may read the answer.
    pub cors: Option<CorsTold>,
    /// Where copies go.
    pub mirrors: Vec<MirrorTold>,
    /// HTTPRouteFilters, in order.
    pub extensions: Vec<ExtensionTold>,
    /// What keeps a client where it was.
    pub session: Option<SessionTold>,
    /// What of a request may name its version.
    pub force_version: Option<ForceTold>,
    /// The version is carried along as baggage, from here on or already.
    pub pins_version: bool,
    /// How often it may be asked.
    pub limits: Vec<LimitTold>,
}

/// A rule's retries (GEP-1731).
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryTold {
    /// HTTP statuses; empty: the router's own choice.
    pub codes: Vec<u16>,
    /// Tries after the first; null: the router's own choice.
    pub attempts: Option<u32>,
    /// Least time before another try.
    pub backoff_ms: Option<u64>,
}

/// Who may read the answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CorsTold {
    /// `rule`, or `mesh`: its options.
    pub by: &'static str,
    /// Origins that may.
    pub origins: Vec<String>,
    /// Whether that of the request may; null: it names none.
    pub allowed: Option<bool>,
    /// Whether cookies and credentials may come along.
    pub credentials: bool,
    /// Methods of a rule's filter; null: every method is answered for.
    pub methods: Option<Vec<String>>,
}

/// Where copies of requests go.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorTold {
    /// The service.
    pub service: String,
    /// None: by the service's split.
    pub version: Option<String>,
    /// 0 to 100, of requests.
    pub percent: f64,
    /// The backend's own; null: the rule's.
    pub backend: Option<String>,
}

/// A HTTPRouteFilter.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionTold {
    /// Its name.
    pub name: String,
    /// What it does, in words.
    pub does: Vec<String>,
}

/// What keeps a client where it was (GEP-1619).
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionTold {
    /// `cookie NAME` or `header NAME`.
    pub by: String,
    /// Whether the request has one that still holds.
    pub known: bool,
    /// From its first request on.
    pub absolute_timeout_ms: Option<u64>,
    /// From its last request on.
    pub idle_timeout_ms: Option<u64>,
}

/// What of a request may name its version.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForceTold {
    /// `cookie NAME` or `header NAME`.
    pub by: String,
    /// What the request has there.
    pub asked: Option<String>,
}

/// A rate limit.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitTold {
    /// The RateLimitPolicy.
    pub policy: String,
    /// Its rule.
    pub rule: String,
    /// Where it is counted: `gateway`, `caller`, or the service.
    pub at: String,
    /// `10 in 1m`.
    pub limit: String,
    /// What has a count of its own; empty: all requests share one.
    pub key: Vec<String>,
    /// `Local` or `Global`.
    pub scope: &'static str,
    /// `Enforce` or `Audit`.
    pub mode: &'static str,
    /// Whether it counts this very request.
    pub counts: bool,
}

impl Doing {
    /// What a rule does to a request.
    pub fn of(
        table: &Table,
        connected: &Connected,
        action: &Action,
        rule: Option<&RouteRule>,
        request: &Request<()>,
    ) -> Self {
        let rare = action.rare.as_deref();
        let headers = request.headers();
        let asked = grpc_timeout(headers);
        let pinned = connected.side != Side::Gateway && is_pinned(headers);
        Self {
            timeout_ms: asked.into_iter().chain(action.timeout).min().map(millis),
            backend_timeout_ms: action.backend_timeout.map(millis),
            retry: action.retry.as_ref().map(|retry| RetryTold {
                codes: retry.codes.clone(),
                attempts: retry.attempts,
                backoff_ms: retry.backoff.map(millis),
            }),
            cors: of_rule(action, headers).or_else(|| of_mesh(table, connected, headers)),
            mirrors: rule.map(mirrors).unwrap_or_default(),
            extensions: action
                .extensions
                .iter()
                .map(|entry| ExtensionTold {
                    name: entry.name.to_string(),
                    does: words(&entry.filter),
                })
                .collect(),
            session: rare.and_then(|rare| rare.session.as_ref()).map(|s| of_session(s, headers)),
            force_version: rare.and_then(|rare| rare.force.as_ref()).map(|f| force(f, headers)),
            pins_version: pinned || rare.is_some_and(|rare| rare.pin),
            limits: limits(connected, &action.limits, request),
        }
    }
}

fn is_pinned(headers: &HeaderMap) -> bool {
    crate::request::baggage::is_pinned(headers)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// As the rule's own filter says; none: it has none.
fn of_rule(action: &Action, headers: &HeaderMap) -> Option<CorsTold> {
    let cors = action.cors()?;
    Some(CorsTold {
        by: "rule",
        origins: cors.allow_origins.iter().map(OriginPattern::to_string).collect(),
        allowed: headers.get(header::ORIGIN).map(|origin| cors::rule_allows(cors, origin)),
        credentials: cors.allow_credentials,
        methods: Some(match &cors.allow_methods {
            Names::Any => vec!["*".to_owned()],
            Names::These(names) => names.iter().map(ToString::to_string).collect(),
        }),
    })
}

/// As the mesh's options say, to pages that ask the gateway.
pub fn of_mesh(table: &Table, connected: &Connected, headers: &HeaderMap) -> Option<CorsTold> {
    let origin = headers.get(header::ORIGIN).filter(|_| connected.side == Side::Gateway)?;
    let origins = &table.options.cors_origins;
    (!origins.is_empty()).then(|| CorsTold {
        by: "mesh",
        origins: origins.iter().map(ToString::to_string).collect(),
        allowed: Some(cors::allowed(table, origin)),
        credentials: false,
        methods: None,
    })
}

/// Also those that copy nothing: they are told as written.
fn mirrors(rule: &RouteRule) -> Vec<MirrorTold> {
    let told = |filters: &[RouteFilter], backend: Option<String>| {
        let mirrors = filters.iter().filter_map(|filter| match filter {
            RouteFilter::RequestMirror(mirror) => Some(mirror),
            _ => None,
        });
        let one = |mirror: &weir_mesh::model::Mirror| MirrorTold {
            service: mirror.service.to_string(),
            version: mirror.version.as_ref().map(ToString::to_string),
            percent: mirror.fraction.map_or(100.0, percent),
            backend: backend.clone(),
        };
        mirrors.map(one).collect::<Vec<_>>()
    };
    let of_backends = rule.backends.iter().flat_map(|backend| {
        let version = backend.version.as_ref().map(|v| format!("-{v}")).unwrap_or_default();
        told(&backend.filters, Some(format!("{}{version}", backend.service)))
    });
    told(&rule.filters, None).into_iter().chain(of_backends).collect()
}

fn percent(fraction: Fraction) -> f64 {
    f64::from(fraction.numerator) * 100.0 / f64::from(fraction.denominator)
}

fn of_session(session: &Session, headers: &HeaderMap) -> SessionTold {
    let kind = if session.header.is_some() { "header" } else { "cookie" };
    SessionTold {
        by: format!("{kind} {}", session.name),
        known: session::find(session, headers).is_some(),
        absolute_timeout_ms: session.absolute_timeout.map(millis),
        idle_timeout_ms: session.idle_timeout.map(millis),
    }
}

fn force(force: &ForceVersion, headers: &HeaderMap) -> ForceTold {
    let text = |text: &str| text.chars().take(80).collect();
    match force {
        ForceVersion::Header(name) => ForceTold {
            by: format!("header {name}"),
            asked: headers.get(name).and_then(|value| value.to_str().ok()).map(text),
        },
        ForceVersion::Cookie(name) => ForceTold {
            by: format!("cookie {name}"),
            asked: choose::cookie(headers, name).map(text),
        },
    }
}

fn words(filter: &Filter) -> Vec<String> {
    let share = |share: Share| match share.millionths() {
        1_000_000 => "every request".to_owned(),
        millionths => format!("{}% of requests", f64::from(millionths) / 10_000.0),
    };
    let mut words = Vec::new();
    if let Some(delay) = filter.fault.as_ref().and_then(|fault| fault.delay.as_ref()) {
        words.push(format!("delays {} by {}", share(delay.share), duration::print(delay.duration)));
    }
    if let Some(abort) = filter.fault.as_ref().and_then(|fault| fault.abort.as_ref()) {
        let with = match abort.with {
            AbortWith::Http(status) => status.as_u16().to_string(),
            AbortWith::Grpc(code) => format!("gRPC status {code}"),
        };
        words.push(format!("answers {} with {with}", share(abort.share)));
    }
    if let Some(direct) = &filter.direct_response {
        words.push(format!("answers {} itself", direct.status.as_u16()));
    }
    if let Some(bytes) = filter.limits.request {
        words.push(format!("takes bodies of at most {bytes} bytes"));
    }
    if let Some(bytes) = filter.limits.response {
        words.push(format!("lets answers of at most {bytes} bytes through"));
    }
    if let Some(compression) = &filter.compression {
        words.push(format!("compresses answers from {} bytes on", compression.min_bytes));
    }
    words
}

/// Limits that hold where the request begins.
fn limits(connected: &Connected, held: &[Attachment], request: &Request<()>) -> Vec<LimitTold> {
    let gateway = connected.side == Side::Gateway;
    let at = if gateway { "gateway" } else { "caller" };
    let here = held.iter().filter(|attachment| gateway || !attachment.gateway_only);
    here.map(|attachment| limit(attachment, at, request)).collect()
}

/// A limit where it holds.
pub fn limit(attachment: &Attachment, at: &str, request: &Request<()>) -> LimitTold {
    let rule = &attachment.rule.rule;
    let key = |part: &KeyPart| match part {
        KeyPart::ClientIdentity => "client identity".to_owned(),
        KeyPart::SourceIp => "source IP".to_owned(),
        KeyPart::Header(name) => format!("header {name}"),
        KeyPart::Tenant(name) => format!("tenant {name}"),
        KeyPart::Claim(name) => format!("claim {name}"),
    };
    LimitTold {
        policy: attachment.rule.policy.to_string(),
        rule: rule.name.to_string(),
        at: at.to_owned(),
        limit: format!("{} in {}", rule.requests, duration::print(rule.per)),
        key: rule.key.iter().map(key).collect(),
        scope: match rule.scope {
            Scope::Local => "Local",
            Scope::Global => "Global",
        },
        mode: match attachment.rule.mode {
            LimitMode::Enforce => "Enforce",
            LimitMode::Audit => "Audit",
        },
        counts: rule.matches.matches(request.method(), request.uri().path(), request.headers()),
    }
}
