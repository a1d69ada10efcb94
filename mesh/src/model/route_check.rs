//! What must hold between the parts of a rule, however it was written.

use super::{PathMatch, PathModifier, RouteFilter, RouteKind, RouteRule, Violations};

/// Most filters of one rule or backendRef; the Gateway API's own limit.
pub const MAX_FILTERS: usize = 16;
/// Most mirrors among them.
pub const MAX_MIRRORS: usize = 8;

/// Notes what cannot be, by paths below `at` that documents and protobuf share.
pub(crate) fn check_rule(rule: &RouteRule, kind: RouteKind, at: &str, bad: &mut Violations) {
    check_filters(&rule.filters, rule, kind, at, bad);
    for (i, backend) in rule.backends.iter().enumerate() {
        let at = format!("{at}.backendRefs[{i}]");
        check_filters(&backend.filters, rule, kind, &at, bad);
        let of_rule = |filter: &RouteFilter| matches!(filter, RouteFilter::Cors(_));
        if let Some(i) = backend.filters.iter().position(of_rule) {
            let why = "belongs to the rule: a preflight comes before any backend is chosen";
            bad.add(format!("{at}.filters[{i}]"), why);
        }
        if rewrites(&rule.filters)
            && let Some(i) = backend.filters.iter().position(is_rewrite)
        {
            let why = "rewrites what the rule's filters have rewritten; keep one of them";
            bad.add(format!("{at}.filters[{i}]"), why);
        }
    }
    let redirects = rule.filters.iter().position(is_redirect);
    if let Some(i) = redirects
        && !rule.backends.is_empty()
    {
        let why = "answers in place of backendRefs; leave out one of them";
        bad.add(format!("{at}.filters[{i}]"), why);
    }
    if let (Some(request), Some(backend)) = (rule.timeout, rule.backend_timeout)
        && backend > request
    {
        let why = "is longer than timeouts.request, which it is a part of";
        bad.add(format!("{at}.timeouts.backendRequest"), why);
    }
}

fn is_redirect(filter: &RouteFilter) -> bool {
    matches!(filter, RouteFilter::RequestRedirect(_))
}

fn is_rewrite(filter: &RouteFilter) -> bool {
    matches!(filter, RouteFilter::UrlRewrite(_))
}

fn rewrites(filters: &[RouteFilter]) -> bool {
    filters.iter().any(is_rewrite)
}

/// Whether a rule may do without backends: something answers in their place.
pub(crate) fn answers(filters: &[RouteFilter]) -> bool {
    filters.iter().any(|f| is_redirect(f) || matches!(f, RouteFilter::Extension { .. }))
}

fn check_filters(
    filters: &[RouteFilter],
    rule: &RouteRule,
    kind: RouteKind,
    at: &str,
    bad: &mut Violations,
) {
    if filters.len() > MAX_FILTERS {
        let why = format!("are {}; at most {MAX_FILTERS} are possible", filters.len());
        bad.add(format!("{at}.filters"), why);
    }
    let mirrors = filters.iter().filter(|f| matches!(f, RouteFilter::RequestMirror(_))).count();
    if mirrors > MAX_MIRRORS {
        let why = format!("hold {mirrors} mirrors; at most {MAX_MIRRORS} are possible");
        bad.add(format!("{at}.filters"), why);
    }
    for (i, filter) in filters.iter().enumerate() {
        let at = format!("{at}.filters[{i}]");
        let name = filter.type_name();
        let again = filters[..i].iter().any(|other| other.type_name() == name);
        let repeats =
            matches!(filter, RouteFilter::RequestMirror(_) | RouteFilter::Extension { .. });
        if again && !repeats {
            bad.add(&*at, format_args!("is a second {name}; one is possible"));
        }
        if is_rewrite(filter) && filters.iter().any(is_redirect) {
            bad.add(&*at, "URLRewrite cannot be beside RequestRedirect; keep one of them");
        }
        let http_only =
            is_redirect(filter) || is_rewrite(filter) || matches!(filter, RouteFilter::Cors(_));
        if http_only && kind == RouteKind::Grpc {
            bad.add(
                &*at,
                format_args!("{name} is for an HTTPRoute; a GRPCRoute has no such filter"),
            );
        }
        if let Some(PathModifier::Prefix(_)) = filter.path()
            && !matches!(rule.matches.as_slice(), [one] if matches!(one.path, PathMatch::Prefix(_)))
        {
            let why = "replacePrefixMatch needs a rule with exactly one match, of type PathPrefix";
            bad.add(&*at, why);
        }
    }
}

/// Whether a text is a path without query: the Gateway API's characters
/// (RFC 3986 §3.3), beginning with '/'.
#[must_use]
pub fn is_path(text: &str) -> bool {
    text.starts_with('/') && is_path_value(text)
}

/// Whether a text has only characters of a path; may be empty.
#[must_use]
pub fn is_path_value(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let good = match byte {
            b'%' => {
                let mut hex = || bytes.next().is_some_and(|b| b.is_ascii_hexdigit());
                hex() && hex()
            }
            _ => byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte),
        };
        if !good {
            return false;
        }
    }
    true
}
