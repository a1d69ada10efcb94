//! What is allowed but hardly meant.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{
    HostPattern, Parent, PathMatch, Route, RouteKind, RouteMatch, ServiceName, ValueMatch,
};

/// Something that a route says and that does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// `UnreachableRule`, `DuplicateMatch` or `ZeroWeightBackend`.
    pub name: &'static str,
    /// Its path, which begins with the route's name:
    /// `web.rules[1].matches[0]`.
    pub field: String,
    /// Why, without the field's name.
    pub description: String,
}

/// Looks at all routes of a mesh together. Errors are not looked for: routes are
/// valid.
///
/// - `UnreachableRule`: each match of a rule is also an earlier one's, which
///   takes all its requests.
/// - `DuplicateMatch`: a match is also one of another route or rule, which goes
///   before it, but the rule has others.
/// - `ZeroWeightBackend`: a backendRef that gets nothing, beside others that do.
#[must_use]
pub fn lint<'a>(routes: impl IntoIterator<Item = &'a Route>) -> Vec<Warning> {
    // In the order in which equal matches are tried.
    let mut order: Vec<&Route> = routes.into_iter().collect();
    order.sort_by(|a, b| a.name.cmp(&b.name));
    let mut seen: HashMap<Key<'_>, String> = HashMap::new();
    let mut warnings = Vec::new();
    for route in order {
        for (i, rule) in route.rules.iter().enumerate() {
            let at = format!("{}.rules[{i}]", route.name);
            let mut taken = Vec::new();
            for (j, matched) in rule.matches.iter().enumerate() {
                let field = format!("{at}.matches[{j}]");
                if let Some(before) = taken_by(route, matched, &field, &mut seen) {
                    taken.push((field, before));
                }
            }
            if taken.len() == rule.matches.len()
                && let [(_, before), ..] = taken.as_slice()
            {
                let description = format!("takes nothing: {before} goes before it and is the same");
                warnings.push(Warning { name: "UnreachableRule", field: at.clone(), description });
            } else {
                warnings.extend(taken.into_iter().map(|(field, before)| Warning {
                    name: "DuplicateMatch",
                    field,
                    description: format!("is the same as {before}, which goes before it"),
                }));
            }
            for (j, backend) in rule.backends.iter().enumerate() {
                if backend.weight.get() == 0 && rule.backends.len() > 1 {
                    warnings.push(Warning {
                        name: "ZeroWeightBackend",
                        field: format!("{at}.backendRefs[{j}].weight"),
                        description: "is 0: only a forced version brings requests here".to_owned(),
                    });
                }
            }
        }
    }
    warnings
}

/// All that decides whether and when a match is tried.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key<'a> {
    parent: Option<&'a ServiceName>,
    host: Option<&'a HostPattern>,
    path: (u8, &'a str, &'a str),
    method: Option<&'a str>,
    headers: Vec<(&'a str, bool, &'a str)>,
    query: Vec<(&'a str, bool, &'a str)>,
}

/// The match that takes all requests of this one: the same for each parent and
/// host name. Notes it otherwise.
fn taken_by<'a>(
    route: &'a Route,
    matched: &'a RouteMatch,
    field: &str,
    seen: &mut HashMap<Key<'a>, String>,
) -> Option<String> {
    let mut before = None;
    let mut free = false;
    for parent in &route.parents {
        let (parent, hosts) = match parent {
            Parent::Service(name) | Parent::Consumer { service: name, .. } => (Some(name), &[][..]),
            Parent::Gateway | Parent::Listener(_) => (None, route.hostnames.as_slice()),
        };
        let each: Vec<Option<&HostPattern>> = match hosts {
            [] => vec![None],
            hosts => hosts.iter().map(Some).collect(),
        };
        for host in each {
            match seen.entry(key(route.kind, parent, host, matched)) {
                std::collections::hash_map::Entry::Occupied(other) => {
                    // The same parent or host twice in one route is itself.
                    if other.get() != field {
                        before.get_or_insert_with(|| other.get().clone());
                    }
                }
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(field.to_owned());
                    free = true;
                }
            }
        }
    }
    before.filter(|_| !free)
}

fn key<'a>(
    kind: RouteKind,
    parent: Option<&'a ServiceName>,
    host: Option<&'a HostPattern>,
    matched: &'a RouteMatch,
) -> Key<'a> {
    let path = match &matched.path {
        PathMatch::Exact(path) => (0, &**path, ""),
        // A gRPC service goes before other prefixes.
        PathMatch::Prefix(path) if kind == RouteKind::Grpc && !path.is_empty() => (1, &**path, ""),
        PathMatch::Prefix(path) => (2, &**path, ""),
        PathMatch::Regex(pattern) => (3, pattern.as_str(), ""),
        PathMatch::GrpcMethod(method) => (4, &**method, ""),
        PathMatch::GrpcRegex { service, method } => {
            let text = |p: &'a Option<crate::model::Pattern>| p.as_ref().map_or("", |p| p.as_str());
            (5, text(service), text(method))
        }
    };
    let value = |value: &'a ValueMatch| match value {
        ValueMatch::Exact(value) => (false, &**value),
        ValueMatch::Regex(pattern) => (true, pattern.as_str()),
    };
    let header = |(name, v): &'a (http::HeaderName, ValueMatch)| {
        let (regex, text) = value(v);
        (name.as_str(), regex, text)
    };
    let param = |(name, v): &'a (Arc<str>, ValueMatch)| {
        let (regex, text) = value(v);
        (&**name, regex, text)
    };
    let mut headers: Vec<_> = matched.headers.iter().map(header).collect();
    let mut query: Vec<_> = matched.query.iter().map(param).collect();
    headers.sort_unstable();
    query.sort_unstable();
    let method = matched.method.as_ref().map(http::Method::as_str);
    Key { parent, host, path, method, headers, query }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BackendRef, RouteRule, Weight};

    fn rule(paths: &[&str]) -> RouteRule {
        let weight = Weight::try_from(1).unwrap();
        let backend = BackendRef::new("users".parse().unwrap(), None, weight);
        let matched = |path: &&str| RouteMatch {
            path: PathMatch::Prefix((*path).into()),
            ..RouteMatch::any()
        };
        RouteRule { matches: paths.iter().map(matched).collect(), ..RouteRule::to(vec![backend]) }
    }

    fn route(name: &str, rules: Vec<RouteRule>) -> Route {
        Route {
            name: name.into(),
            kind: RouteKind::Http,
            parents: vec![Parent::Gateway],
            hostnames: Vec::new(),
            rules,
            force_version: None,
            pin_versions: false,
        }
    }

    fn found(routes: &[Route]) -> Vec<(&'static str, String)> {
        lint(routes).into_iter().map(|warning| (warning.name, warning.field)).collect()
    }

    #[test]
    fn what_is_right_has_no_warnings() {
        let routes =
            [route("a", vec![rule(&["/a"]), rule(&["/b"])]), route("b", vec![rule(&[""])])];
        assert_eq!(lint(&routes), []);
        // The same match for other hosts is another one.
        let mut other = route("b", vec![rule(&["/a"])]);
        other.hostnames = vec![HostPattern::parse("a.test").unwrap()];
        assert_eq!(lint(&[route("a", vec![rule(&["/a"])]), other]), []);
    }

    #[test]
    fn a_rule_that_is_shadowed_whole_is_unreachable() {
        let routes = [
            route("b", vec![rule(&["/a"]), rule(&["/b", "/c"])]),
            route("a", vec![rule(&["/a"]), rule(&["/c"]), rule(&["/a"])]),
        ];
        assert_eq!(
            found(&routes),
            [
                ("UnreachableRule", "a.rules[2]".to_owned()),
                ("UnreachableRule", "b.rules[0]".to_owned()),
                ("DuplicateMatch", "b.rules[1].matches[1]".to_owned()),
            ]
        );
        let warning = &lint(&routes)[1];
        assert!(warning.description.contains("a.rules[0].matches[0]"), "{warning:?}");
    }

    #[test]
    fn a_rule_that_is_shadowed_for_some_hosts_or_parents_is_not() {
        let host = |name: &str| HostPattern::parse(name).unwrap();
        let mut first = route("a", vec![rule(&["/a"])]);
        first.hostnames = vec![host("a.test")];
        let mut second = route("b", vec![rule(&["/a"])]);
        second.hostnames = vec![host("a.test"), host("b.test")];
        assert_eq!(lint(&[first.clone(), second.clone()]), []);
        second.hostnames.pop();
        assert_eq!(found(&[first.clone(), second.clone()]).len(), 1);
        second.parents.push(Parent::Service("users".parse().unwrap()));
        assert_eq!(lint(&[first, second]), []);
    }

    #[test]
    fn the_order_of_headers_makes_no_other_match() {
        let header = |name: &'static str| {
            (http::HeaderName::from_static(name), ValueMatch::Exact("1".into()))
        };
        let with = |headers: Vec<_>| {
            let mut rule = rule(&["/a"]);
            rule.matches[0].headers = headers;
            rule
        };
        let a = with(vec![header("x"), header("y")]);
        let b = with(vec![header("y"), header("x")]);
        let c = with(vec![header("y")]);
        assert_eq!(
            found(&[route("a", vec![a, b, c])]),
            [("UnreachableRule", "a.rules[1]".to_owned())]
        );
    }

    #[test]
    fn a_weight_of_0_is_told() {
        let mut rule = rule(&["/a"]);
        let zero = Weight::try_from(0).unwrap();
        rule.backends.push(BackendRef::new("auth".parse().unwrap(), None, zero));
        assert_eq!(
            found(&[route("a", vec![rule])]),
            [("ZeroWeightBackend", "a.rules[0].backendRefs[1].weight".to_owned())]
        );
    }
}
