use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;
use weir_mesh::model::RouteMatch;

use super::*;
use crate::table::Splitter;

fn action(label: &str) -> Arc<Action> {
    Arc::new(Action {
        label: label.into(),
        backends: Vec::new(),
        splitter: Splitter::new(0, vec![1]),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        timeout: None,
        guard: None,
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
        matcher.add(&hosts, wants, &(*label).into(), 0, &action(label));
    }
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
    let header = |name: &'static str| (http::HeaderName::from_static(name), "1".parse().unwrap());
    let one = RouteMatch { headers: vec![header("a")], ..prefix("/p") };
    let two = RouteMatch { headers: vec![header("a"), header("b")], ..prefix("/p") };
    let query = RouteMatch { query: vec![("q".into(), "a b".into())], ..prefix("/p") };
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

fn some_path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,2}", 0..4).prop_map(|segments| {
        segments.iter().fold(String::new(), |path, segment| path + "/" + segment)
    })
}

proptest! {
    /// Lookup by hash gives what reading every rule in order of precedence gives.
    #[test]
    fn agrees_with_reading_every_rule(
        rules in prop::collection::vec((some_path(), any::<bool>()), 0..12), path in some_path()
    ) {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let mut m = Matcher::default();
        let mut wants = Vec::new();
        for (i, (text, is_exact)) in rules.iter().enumerate() {
            let want = if *is_exact { PathMatch::Exact(text.as_str().into()) } else { PathMatch::Prefix(text.as_str().into()) };
            let label: Arc<str> = format!("{i:02}").into();
            m.add(&[], &RouteMatch { path: want.clone(), ..RouteMatch::any() }, &label, 0, &action(&label));
            wants.push((want, label));
        }
        let best = wants.iter().filter(|(want, _)| want.matches(&path)).min_by_key(|(want, label)| {
            let (prefix, length) = match want { PathMatch::Exact(p) => (false, p.len()), PathMatch::Prefix(p) => (true, p.len()) };
            (prefix, std::cmp::Reverse(length), label.clone())
        });
        prop_assert_eq!(find(&m, "x", &path), best.map(|(_, label)| label.to_string()));
    }
}
