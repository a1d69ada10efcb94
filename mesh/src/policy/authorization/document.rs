//! The document, and its way into what routers see.

use http::{HeaderName, Method};
use serde::Deserialize;

use super::{
    Action, Authorization, ClaimMatch, External, From, HeaderMatch, Mode, PathPattern, PeerPattern,
    Peers, Rule, To, When,
};
use crate::model::{HostPattern, Violations};
use crate::policy::value::DurationText;

/// Most entries of any list of a policy.
const MAX: usize = 256;
/// For an external decision, when the policy does not say.
const TIMEOUT: std::time::Duration = std::time::Duration::from_millis(200);
/// The longest that one may take.
const MAX_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// The spec of an AuthorizationPolicy: any Deny that takes a request denies it;
/// when a target has an Allow, one of them must take the request; what nobody
/// decides is left to the mesh's `authorization.default`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationDocument {
    /// What happens with the requests that rules take.
    action: ActionWord,
    /// `Audit` only reports.
    #[serde(default)]
    mode: Option<ModeWord>,
    /// Any of these takes a request. An Allow without rules allows nothing.
    #[serde(default)]
    rules: Vec<RuleDocument>,
    /// Who decides; for `External`.
    #[serde(default)]
    external: Option<ExternalDocument>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
enum ActionWord {
    Allow,
    Deny,
    External,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
enum ModeWord {
    Enforce,
    Audit,
}

/// All of its parts must fit; `{}` takes every request.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RuleDocument {
    /// For logs and metrics; else the rule's place, from 0.
    name: Option<String>,
    /// Who asks.
    from: Option<FromDocument>,
    /// What is asked for.
    to: Option<ToDocument>,
    /// On which conditions.
    when: Option<WhenDocument>,
}

/// Who asks, by the certificate: one of the identities, namespaces and services,
/// and none of the others.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FromDocument {
    /// SPIFFE ids; `.../*` for all below a segment, `*` for whoever has one.
    identities: Option<Vec<String>>,
    /// None of these; an identity that was not proven is none of them.
    not_identities: Option<Vec<String>>,
    /// Namespaces of identities of the mesh.
    namespaces: Option<Vec<String>>,
    /// None of these.
    not_namespaces: Option<Vec<String>>,
    /// `service` (of the namespace `default`), or `namespace/service`.
    services: Option<Vec<String>>,
    /// None of these.
    not_services: Option<Vec<String>>,
}

/// What is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ToDocument {
    /// HTTP methods, compared exactly.
    methods: Option<Vec<String>>,
    /// None of these.
    not_methods: Option<Vec<String>>,
    /// Paths, compared with the canonical form of the request's.
    paths: Option<Vec<PathDocument>>,
    /// None of these.
    not_paths: Option<Vec<PathDocument>>,
    /// `name.example.com` or `*.example.com`, without port.
    hosts: Option<Vec<String>>,
    /// gRPC services and methods.
    grpc: Option<Vec<GrpcDocument>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
enum PathType {
    Exact,
    PathPrefix,
    PathSuffix,
}

/// A path in canonical form.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PathDocument {
    /// `Exact`, `PathPrefix` (by segment) or `PathSuffix`.
    r#type: PathType,
    /// In canonical form.
    value: String,
}

/// A gRPC service, or one method of it.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GrpcDocument {
    /// With its package: `weir.products.v1.ProductsService`.
    service: String,
    /// All of the service, if not set.
    #[serde(default)]
    method: Option<String>,
}

/// Conditions; all of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WhenDocument {
    /// Claims of a token that an AuthenticationPolicy has had verified.
    claims: Vec<ValuesDocument>,
    /// Headers of the request.
    headers: Vec<ValuesDocument>,
}

/// Something that must be there, with one of the values if there are any.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ValuesDocument {
    /// Its name; of a claim with dots, of claims within claims.
    name: String,
    /// One of these; any, if not set.
    #[serde(default)]
    values: Option<Vec<String>>,
}

/// A service of the mesh that speaks Envoy's `ext_authz`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExternalDocument {
    /// Its name in the mesh.
    service: String,
    /// 200ms by default, 30s at most.
    #[serde(default)]
    timeout: Option<DurationText>,
    /// Whether requests go on when it does not answer.
    #[serde(default)]
    fail_open: bool,
    /// Headers that it is told; all, if this is not set.
    #[serde(default)]
    include_headers: Option<Vec<String>>,
}

pub(super) fn read(
    document: AuthorizationDocument,
    at: &str,
    bad: &mut Violations,
) -> Option<Authorization> {
    let action = match (document.action, document.external) {
        (ActionWord::External, Some(external)) => {
            external_of(external, &format!("{at}.external"), bad).map(Action::External)
        }
        (ActionWord::External, None) => {
            bad.add(format!("{at}.external"), "is missing; it says who decides");
            None
        }
        (_, Some(_)) => {
            bad.add(format!("{at}.external"), "is for the action External only");
            None
        }
        (ActionWord::Allow, None) => Some(Action::Allow),
        (ActionWord::Deny, None) => Some(Action::Deny),
    };
    if document.rules.is_empty() && document.action != ActionWord::Allow {
        let why = "is empty, so that the policy would do nothing; use [{}] for every request";
        bad.add(format!("{at}.rules"), why);
    }
    count(document.rules.len(), &format!("{at}.rules"), bad);
    let mut rules = Vec::with_capacity(document.rules.len());
    for (i, sent) in document.rules.into_iter().enumerate() {
        rules.push(rule(sent, i, &format!("{at}.rules[{i}]"), bad));
    }
    let mode = match document.mode {
        None | Some(ModeWord::Enforce) => Mode::Enforce,
        Some(ModeWord::Audit) => Mode::Audit,
    };
    Some(Authorization { action: action?, mode, rules })
}

fn count(len: usize, at: &str, bad: &mut Violations) {
    if len > MAX {
        bad.add(at, format_args!("has {len} entries; at most {MAX} are possible"));
    }
}

/// Reads each entry of a list; one that is there and empty would mean nothing,
/// or everything: it is refused.
fn each<S, T>(
    list: Option<Vec<S>>,
    at: &str,
    bad: &mut Violations,
    mut read: impl FnMut(&S, &str, &mut Violations) -> Option<T>,
) -> Vec<T> {
    let Some(list) = list else { return Vec::new() };
    if list.is_empty() {
        bad.add(at, "is empty; leave it out if it does not matter");
    }
    count(list.len(), at, bad);
    let read = |(i, entry): (usize, &S)| read(entry, &format!("{at}[{i}]"), bad);
    list.iter().enumerate().filter_map(read).collect()
}

fn rule(sent: RuleDocument, index: usize, at: &str, bad: &mut Violations) -> Rule {
    if let Some(name) = &sent.name
        && (name.is_empty() || name.len() > 63 || !name.bytes().all(|b| b.is_ascii_graphic()))
    {
        bad.add(format!("{at}.name"), "must have 1 to 63 visible ASCII characters");
    }
    Rule {
        name: sent.name.unwrap_or_else(|| index.to_string()).into(),
        from: sent.from.map(|from| from_of(from, &format!("{at}.from"), bad)).unwrap_or_default(),
        to: sent.to.map(|to| to_of(to, &format!("{at}.to"), bad)).unwrap_or_default(),
        when: sent.when.map(|when| when_of(when, &format!("{at}.when"), bad)).unwrap_or_default(),
    }
}

fn from_of(sent: FromDocument, at: &str, bad: &mut Violations) -> From {
    type Parse = fn(&str) -> Result<PeerPattern, String>;
    let mut peers = |lists: [(Option<Vec<String>>, &str, Parse); 3]| {
        let mut all = Vec::new();
        let mut any = false;
        for (list, field, parse) in lists {
            any |= list.is_some();
            let at = format!("{at}.{field}");
            all.extend(each(list, &at, bad, |text, at, bad| bad.take(at, parse(text))));
        }
        any.then_some(Peers(all))
    };
    let wanted = peers([
        (sent.identities, "identities", PeerPattern::identity),
        (sent.namespaces, "namespaces", PeerPattern::namespace),
        (sent.services, "services", PeerPattern::service),
    ]);
    let not = peers([
        (sent.not_identities, "notIdentities", PeerPattern::identity),
        (sent.not_namespaces, "notNamespaces", PeerPattern::namespace),
        (sent.not_services, "notServices", PeerPattern::service),
    ]);
    From { peers: wanted, not_peers: not.unwrap_or_default() }
}

fn to_of(sent: ToDocument, at: &str, bad: &mut Violations) -> To {
    fn method(text: &String, at: &str, bad: &mut Violations) -> Option<Method> {
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            bad.add(at, format_args!("{text:?} is no method; they are in upper case"));
            return None;
        }
        bad.take(
            at,
            Method::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is no method")),
        )
    }
    fn path(sent: &PathDocument, at: &str, bad: &mut Violations) -> Option<PathPattern> {
        let pattern = match sent.r#type {
            PathType::Exact => PathPattern::exact(&sent.value),
            PathType::PathPrefix => PathPattern::prefix(&sent.value),
            PathType::PathSuffix => PathPattern::suffix(&sent.value),
        };
        bad.take(&format!("{at}.value"), pattern)
    }
    fn grpc(sent: &GrpcDocument, at: &str, bad: &mut Violations) -> Option<PathPattern> {
        let word = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
        };
        if !word(&sent.service) || sent.service.starts_with('.') {
            let why = "is no gRPC service; use its full name, like weir.users.v1.UsersService";
            bad.add(format!("{at}.service"), why);
            return None;
        }
        let Some(method) = &sent.method else {
            return bad.take(at, PathPattern::prefix(&format!("/{}", sent.service)));
        };
        if !word(method) || method.contains('.') {
            bad.add(format!("{at}.method"), "is no gRPC method; use its name, like GetUser");
            return None;
        }
        bad.take(at, PathPattern::exact(&format!("/{}/{method}", sent.service)))
    }
    To {
        methods: each(sent.methods, &format!("{at}.methods"), bad, method),
        not_methods: each(sent.not_methods, &format!("{at}.notMethods"), bad, method),
        paths: each(sent.paths, &format!("{at}.paths"), bad, path),
        not_paths: each(sent.not_paths, &format!("{at}.notPaths"), bad, path),
        hosts: each(sent.hosts, &format!("{at}.hosts"), bad, |text: &String, at, bad| {
            bad.take(at, HostPattern::parse(text))
        }),
        grpc: each(sent.grpc, &format!("{at}.grpc"), bad, grpc),
    }
}

fn when_of(sent: WhenDocument, at: &str, bad: &mut Violations) -> When {
    let text = |value: &String, _: &str, _: &mut Violations| Some(value.as_str().into());
    let mut claims = Vec::new();
    for (i, sent) in sent.claims.into_iter().enumerate() {
        let at = format!("{at}.claims[{i}]");
        if sent.name.is_empty() || sent.name.len() > 256 {
            bad.add(format!("{at}.name"), "must have 1 to 256 characters");
        }
        let values = each(sent.values, &format!("{at}.values"), bad, text);
        claims.push(ClaimMatch { name: sent.name.into(), values });
    }
    let mut headers = Vec::new();
    for (i, sent) in sent.headers.into_iter().enumerate() {
        let at = format!("{at}.headers[{i}]");
        let name = header(&sent.name, &format!("{at}.name"), bad);
        if sent.name.eq_ignore_ascii_case("x-forwarded-client-cert") {
            bad.add(format!("{at}.name"), "anyone can send it; use from.identities instead");
        }
        let values = each(sent.values, &format!("{at}.values"), bad, text);
        headers.extend(name.map(|name| HeaderMatch { name, values }));
    }
    When { claims, headers }
}

pub(crate) fn header(text: &str, at: &str, bad: &mut Violations) -> Option<HeaderName> {
    bad.take(at, text.parse::<HeaderName>().map_err(|_| format!("{text:?} is no header name")))
}

fn external_of(sent: ExternalDocument, at: &str, bad: &mut Violations) -> Option<External> {
    let timeout = sent.timeout.map_or(TIMEOUT, |text| text.0);
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        bad.add(format!("{at}.timeout"), "must be from 1ms to 30s");
    }
    let headers = sent.include_headers.map(|list| {
        each(Some(list), &format!("{at}.includeHeaders"), bad, |text, at, bad| {
            header(text, at, bad)
        })
    });
    let service = bad.take(&format!("{at}.service"), sent.service.parse())?;
    Some(External { service, timeout, fail_open: sent.fail_open, headers })
}
