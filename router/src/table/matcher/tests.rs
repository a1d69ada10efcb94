use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;
use weir_mesh::model::{Pattern, RouteMatch, ValueMatch};

use super::*;
use crate::table::Splitter;

fn action(label: &str) -> Arc<Action> {
    Arc::new(Action {
        label: label.into(),
        backends: Vec::new(),
        splitter: Splitter::new(0, vec![1]),
        timeout: None,
        backend_timeout: None,
        retry: None,
        filters: None,
        guard: None,
        limits: Vec::new(),
        extensions: Vec::new(),
        rare: None,
    })
}

fn path(path: PathMatch) -> RouteMatch {
    RouteMatch { path, ..RouteMatch::any() }
}

fn exact(text: &str) -> RouteMatch {
    path(PathMatch::Exact(text.into()))
}

fn prefix(text: &str) -> RouteMatch {
    path(PathMatch::Prefix(text.into()))
}

fn matcher(rules: &[(&str, &[&str], RouteMatch)]) -> Matcher {
    let mut matcher = Matcher::default();
    for (label, hosts, wants) in rules {
        let hosts: Vec<_> = hosts.iter().map(|h| HostPattern::parse(h).unwrap()).collect();
        let route = (*label).into();
        let origin = Origin { route: &route, kind: RouteKind::Http, rule: 0 };
        matcher.add(&hosts, wants, origin, &action(label));
    }
    matcher.seal();
    matcher
}

fn find(matcher: &Matcher, host: &str, path: &str) -> Option<String> {
    find_with(matcher, host, path, &HeaderMap::new())
}

fn find_with(matcher: &Matcher, host: &str, path: &str, headers: &HeaderMap) -> Option<String> {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let query = Query { host, path, query, method: &Method::GET, headers };
    matcher.find(&query).map(|action| action.label.to_string())
}

#[test]
fn an_exact_path_goes_before_any_prefix_and_longer_before_shorter() {
    let m = matcher(&[
        ("any", &[], prefix("")),
        ("v1", &[], prefix("/v1")),
        ("products", &[], prefix("/v1/products")),
        ("exact", &[], exact("/v1/products")),
    ]);
    assert_eq!(find(&m, "x", "/v1/products").unwrap(), "exact");
    assert_eq!(find(&m, "x", "/v1/products/7").unwrap(), "products");
    assert_eq!(find(&m, "x", "/v1/productsx").unwrap(), "v1");
    assert_eq!(find(&m, "x", "/v1").unwrap(), "v1");
    assert_eq!(find(&m, "x", "/v1/").unwrap(), "v1");
    assert_eq!(find(&m, "x", "/v10").unwrap(), "any");
}

#[test]
fn a_named_host_goes_before_a_wildcard_and_a_longer_one_before_a_shorter() {
    let m = matcher(&[
        ("all", &[], prefix("")),
        ("com", &["*.com"], prefix("")),
        ("example", &["*.example.com"], prefix("")),
        ("a", &["a.example.com"], prefix("/a")),
    ]);
    assert_eq!(find(&m, "a.example.com", "/a").unwrap(), "a");
    assert_eq!(find(&m, "a.example.com", "/b").unwrap(), "example");
    assert_eq!(find(&m, "x.y.example.com", "/").unwrap(), "example");
    assert_eq!(find(&m, "example.com", "/").unwrap(), "com");
    assert_eq!(find(&m, "localhost", "/").unwrap(), "all");
}

#[test]
fn of_equal_paths_the_one_that_asks_for_more_goes_first() {
    let exact = |value: &str| ValueMatch::Exact(value.into());
    let header = |name: &'static str| (http::HeaderName::from_static(name), exact("1"));
    let one = RouteMatch { headers: vec![header("a")], ..prefix("/p") };
    let two = RouteMatch { headers: vec![header("a"), header("b")], ..prefix("/p") };
    let query = RouteMatch { query: vec![("q".into(), exact("a b"))], ..prefix("/p") };
    let method = RouteMatch { method: Some(Method::POST), ..prefix("/p") };
    let m = matcher(&[
        ("plain", &[], prefix("/p")),
        ("one", &[], one),
        ("two", &[], two),
        ("query", &[], query),
        ("post", &[], method),
    ]);
    let mut headers = HeaderMap::new();
    assert_eq!(find_with(&m, "x", "/p", &headers).unwrap(), "plain");
    assert_eq!(find_with(&m, "x", "/p?q=a+b", &headers).unwrap(), "query");
    assert_eq!(find_with(&m, "x", "/p?z=1&q=a%20b", &headers).unwrap(), "query");
    headers.insert("a", HeaderValue::from_static("1"));
    assert_eq!(find_with(&m, "x", "/p?q=a+b", &headers).unwrap(), "one");
    headers.insert("b", HeaderValue::from_static("1"));
    assert_eq!(find_with(&m, "x", "/p", &headers).unwrap(), "two");
}

#[test]
fn a_candidate_that_does_not_take_it_lets_a_shorter_path_try() {
    let post = RouteMatch { method: Some(Method::POST), ..exact("/p") };
    let m = matcher(&[("post", &[], post), ("any", &[], prefix(""))]);
    assert_eq!(find(&m, "x", "/p").unwrap(), "any");
}

#[test]
fn patterns_go_between_exact_paths_and_prefixes_the_longer_one_first() {
    let regex = |text: &str| path(PathMatch::Regex(Pattern::parse(text).unwrap()));
    let m = matcher(&[
        ("a-any", &[], prefix("")),
        ("b-long-prefix", &[], prefix("/v1/products/special/offers")),
        ("c-short", &[], regex("/v1/.*")),
        ("d-long", &[], regex("/v1/[a-z]+/.*")),
        ("e-exact", &[], exact("/v1/products/7")),
        ("f-host", &["a.test"], prefix("")),
    ]);
    assert_eq!(find(&m, "x", "/v1/products/7").unwrap(), "e-exact");
    assert_eq!(find(&m, "x", "/v1/products/8").unwrap(), "d-long");
    assert_eq!(find(&m, "x", "/v1/products/special/offers").unwrap(), "d-long");
    assert_eq!(find(&m, "x", "/v1/8").unwrap(), "c-short");
    assert_eq!(find(&m, "x", "/v2/8").unwrap(), "a-any");
    assert_eq!(find(&m, "a.test", "/v1/8").unwrap(), "f-host");
}

#[test]
fn grpc_methods_go_by_service_then_by_method() {
    let mut m = Matcher::default();
    let pattern = |text: &str| Pattern::parse(text).ok();
    let regex = |service: &str, method: &str| PathMatch::GrpcRegex {
        service: pattern(service),
        method: pattern(method),
    };
    for (label, wants) in [
        ("any", PathMatch::any()),
        ("method", PathMatch::GrpcMethod("Get".into())),
        ("service", PathMatch::Prefix("/a.B".into())),
        ("both", PathMatch::Exact("/a.B/Get".into())),
        ("regex", regex("a\\..*", "")),
        ("regex-both", regex("a\\..*", "L.*")),
        ("regex-method", regex("", "Li[a-z]+")),
    ] {
        let route = label.into();
        let origin = Origin { route: &route, kind: RouteKind::Grpc, rule: 0 };
        m.add(&[], &path(wants), origin, &action(label));
    }
    m.seal();
    for (path, label) in [
        ("/a.B/Get", "both"),
        ("/a.B/List", "service"),
        ("/a.C/List", "regex-both"),
        ("/a.C/Get", "regex"),
        ("/b.C/List", "regex-method"),
        ("/b.C/Get", "method"),
        ("/b.C/Put", "any"),
        ("/b.C/Get/x", "any"),
    ] {
        assert_eq!(find(&m, "x", path).unwrap(), label, "{path}");
    }
}

#[test]
fn many_rules_that_differ_by_a_header_are_found_by_it() {
    let wants = |env: &str, tenant: usize| RouteMatch {
        headers: [("x-env", env.to_owned()), ("x-tenant", tenant.to_string())]
            .map(|(name, v)| (http::HeaderName::from_static(name), ValueMatch::Exact(v.into())))
            .into(),
        ..prefix("/p")
    };
    let labels: Vec<String> = (0..2000).map(|i| format!("t{i}")).collect();
    let mut rules: Vec<(&str, &[&str], RouteMatch)> =
        labels.iter().enumerate().map(|(i, label)| (&**label, &[][..], wants("a", i))).collect();
    rules.push(("rest", &[], prefix("/p")));
    let m = matcher(&rules);
    let mut headers = HeaderMap::new();
    headers.insert("x-env", HeaderValue::from_static("a"));
    headers.insert("x-tenant", HeaderValue::from_static("1234"));
    assert_eq!(find_with(&m, "x", "/p", &headers).unwrap(), "t1234");
    headers.insert("x-env", HeaderValue::from_static("b"));
    assert_eq!(find_with(&m, "x", "/p", &headers).unwrap(), "rest");
    // A value need not be ASCII (RFC 9110 §5.5).
    let odd = RouteMatch {
        headers: vec![(http::HeaderName::from_static("x-env"), ValueMatch::Exact("\u{e4}".into()))],
        ..prefix("/p")
    };
    rules.push(("odd", &[], odd));
    let m = matcher(&rules);
    headers.insert("x-env", HeaderValue::from_bytes("\u{e4}".as_bytes()).unwrap());
    assert_eq!(find_with(&m, "x", "/p", &headers).unwrap(), "odd");
}

/// What the Gateway API says of precedence, as it says it, beside our place for
/// patterns: the one of two matches of one host that goes first.
fn compare(a: &Rule, b: &Rule) -> std::cmp::Ordering {
    let class = |rule: &Rule| match (&rule.wants.path, rule.kind) {
        (PathMatch::Exact(_), _) => 0,
        (PathMatch::Prefix(p), RouteKind::Grpc) if p.matches('/').count() == 1 => 1,
        (PathMatch::Regex(_) | PathMatch::GrpcRegex { .. }, _) => 2,
        (PathMatch::Prefix(p), _) if !p.is_empty() => 3,
        (PathMatch::GrpcMethod(_), _) => 4,
        (PathMatch::Prefix(_), _) => 5,
    };
    let length = |rule: &Rule| match &rule.wants.path {
        PathMatch::Prefix(p) => (p.len(), 0),
        PathMatch::Regex(p) => (p.as_str().len(), 0),
        PathMatch::GrpcRegex { service, method } => {
            let length = |p: &Option<Pattern>| p.as_ref().map_or(0, |p| p.as_str().len());
            (length(service), length(method))
        }
        PathMatch::Exact(_) | PathMatch::GrpcMethod(_) => (0, 0),
    };
    class(a)
        .cmp(&class(b))
        .then(length(b).cmp(&length(a)))
        .then(b.wants.method.is_some().cmp(&a.wants.method.is_some()))
        .then(b.wants.headers.len().cmp(&a.wants.headers.len()))
        .then(b.wants.query.len().cmp(&a.wants.query.len()))
        .then(a.route.cmp(&b.route))
        .then(a.rule.cmp(&b.rule))
}

#[derive(Debug, Clone)]
struct Rule {
    route: Arc<str>,
    kind: RouteKind,
    rule: usize,
    host: u8,
    wants: RouteMatch,
}

/// 0 to 3: from no host to the most precise one.
const HOSTS: [&[&str]; 4] = [&[], &["*.test"], &["*.a.test"], &["x.a.test"]];

/// So few that many rules are about the same.
fn some_path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]", 0..3).prop_map(|segments| {
        segments.iter().fold(String::new(), |path, segment| path + "/" + segment)
    })
}

/// Compiled once.
fn patterns(texts: &[&str]) -> impl Strategy<Value = Pattern> + use<> {
    let all: Vec<_> = texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    prop::sample::select(all)
}

fn some_value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        3 => "[12]".prop_map(|text| ValueMatch::Exact(text.into())),
        1 => patterns(&["1|2", "[2-9]"]).prop_map(ValueMatch::Regex),
    ]
}

fn some_values() -> impl Strategy<Value = Vec<(&'static str, ValueMatch)>> {
    prop::collection::btree_map(prop::sample::select(vec!["x", "y"]), some_value(), 0..3)
        .prop_map(|map| map.into_iter().collect())
}

fn some_wants() -> impl Strategy<Value = (RouteKind, RouteMatch)> {
    let pattern = || patterns(&["/a.*", "/.*", "a+", ".*b", "[ab]*"]);
    let path = prop_oneof![
        3 => some_path().prop_map(|p| PathMatch::Exact(p.into())),
        5 => some_path().prop_map(|p| PathMatch::Prefix(p.into())),
        2 => pattern().prop_map(PathMatch::Regex),
        1 => "[ab]".prop_map(|p| PathMatch::GrpcMethod(p.into())),
        1 => (pattern(), prop::option::of(pattern())).prop_map(|(service, method)| {
            PathMatch::GrpcRegex { service: Some(service), method }
        }),
    ];
    let method = prop::option::of(prop::sample::select(vec![Method::GET, Method::POST]));
    let kind = prop::sample::select(vec![RouteKind::Http, RouteKind::Grpc]);
    (kind, path, method, some_values(), some_values()).prop_map(
        |(kind, path, method, headers, query)| {
            let header = |(name, value)| (http::HeaderName::from_static(name), value);
            let headers = headers.into_iter().map(header).collect();
            let query = query.into_iter().map(|(name, value)| (name.into(), value)).collect();
            (kind, RouteMatch { path, method, headers, query })
        },
    )
}

fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    let host = prop_oneof![4 => Just(0u8), 1 => 1u8..4];
    let rule = (some_wants(), host, "[a-d]").prop_map(|((kind, wants), host, route)| Rule {
        route: route.into(),
        kind,
        rule: 0,
        host,
        wants,
    });
    prop::collection::vec(rule, 0..120).prop_map(|mut rules| {
        rules.iter_mut().enumerate().for_each(|(i, rule)| rule.rule = i);
        rules
    })
}

fn some_pairs() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    prop::collection::vec((prop::sample::select(vec!["x", "y"]), "[123]"), 0..3)
}

proptest! {
    /// Lookup by hash gives what reading every rule in order of precedence gives.
    #[test]
    fn agrees_with_reading_every_rule(
        rules in some_rules(),
        path in some_path(),
        host in prop::sample::select(vec!["x.a.test", "y.a.test", "z.test", "other"]),
        method in prop::sample::select(vec![Method::GET, Method::POST]),
        pairs in (some_pairs(), some_pairs()),
    ) {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let mut headers = HeaderMap::new();
        for (name, value) in &pairs.0 {
            headers.append(*name, value.parse().unwrap());
        }
        let query: Vec<String> = pairs.1.iter().map(|(name, v)| format!("{name}={v}")).collect();
        let query = query.join("&");

        let mut m = Matcher::default();
        for rule in &rules {
            let hosts: Vec<_> = HOSTS[usize::from(rule.host)].iter().map(|h| HostPattern::parse(h).unwrap()).collect();
            let origin = Origin { route: &rule.route, kind: rule.kind, rule: rule.rule };
            m.add(&hosts, &rule.wants, origin, &action(&rule.rule.to_string()));
        }
        m.seal();
        let asked = Query { host, path: &path, query: Some(&query), method: &method, headers: &headers };
        let found = m.find(&asked).map(|action| action.label.to_string());

        let first = |pairs: &[(&str, String)], name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
        let best = rules.iter().filter(|rule| {
            let named = HOSTS[usize::from(rule.host)];
            (named.is_empty() || named.iter().any(|h| HostPattern::parse(h).unwrap().matches(host)))
                && rule.wants.path.matches(&path)
                && rule.wants.method.as_ref().is_none_or(|m| *m == method)
                && rule.wants.headers.iter().all(|(name, v)| first(&pairs.0, name.as_str()).is_some_and(|found| v.matches(found.as_bytes())))
                && rule.wants.query.iter().all(|(name, v)| first(&pairs.1, name).is_some_and(|found| v.matches(found.as_bytes())))
        }).min_by(|a, b| b.host.cmp(&a.host).then_with(|| compare(a, b)));
        prop_assert_eq!(found, best.map(|rule| rule.rule.to_string()));
    }

    /// Of two different matches one always goes first, whatever else there is.
    #[test]
    fn precedence_is_a_total_order(rules in some_rules()) {
        let rules = &rules[..rules.len().min(30)];
        for a in rules {
            for b in rules {
                prop_assert_eq!(compare(a, b), compare(b, a).reverse());
                prop_assert_eq!(compare(a, b).is_eq(), a.rule == b.rule);
                for c in rules.iter().take(4) {
                    if compare(a, b).is_le() && compare(b, c).is_le() {
                        prop_assert!(compare(a, c).is_le());
                    }
                }
            }
        }
    }
}
