use http::{HeaderName, Method};
use proptest::prelude::*;
use weir_mesh::model::{
    BackendRef, Cors, ForceVersion, HeaderModifier, HostPattern, Names, OriginPattern, PathMatch,
    Pattern, RouteFilter, RouteKind, RouteMatch, RouteRule, ValueMatch, Weight,
};
use weir_mesh::wire;
use weir_proto::weir::mesh::v1 as pb;

use super::*;

fn service(name: &str, versions: &[(&str, i32)], sticky: Option<&str>) -> pb::Service {
    let version = |(version, weight): &(&str, i32)| pb::VersionWeight {
        version: (*version).to_owned(),
        weight: *weight,
        addresses: Vec::new(),
    };
    pb::Service {
        name: name.to_owned(),
        protocol: pb::Protocol::Http1.into(),
        versions: versions.iter().map(version).collect(),
        sticky: sticky.map(|name| pb::Sticky { by: Some(pb::sticky::By::Header(name.to_owned())) }),
        ..Default::default()
    }
}

fn snapshot(routes: Vec<Route>) -> Snapshot {
    let instance = pb::Instance {
        id: "web-1".into(),
        service: "web".into(),
        version: "v1".into(),
        address: "127.0.0.1:9".into(),
        zone: "a".into(),
        healthy: true,
        ..Default::default()
    };
    let message = pb::Snapshot {
        trust_domain: "weir.local".into(),
        services: vec![
            service("web", &[("v1", 90), ("v2", 10)], None),
            service("shop", &[("v1", 1), ("v2", 1)], Some("x-user")),
        ],
        instances: vec![instance],
        ..Default::default()
    };
    Snapshot { routes, ..wire::snapshot(&message).unwrap() }
}

fn rule(matches: Vec<RouteMatch>, backends: &[(&str, Option<&str>, i64)]) -> RouteRule {
    let backend = |(service, version, weight): &(&str, Option<&str>, i64)| {
        let version = version.map(|version| version.parse().unwrap());
        BackendRef::new(service.parse().unwrap(), version, Weight::try_from(*weight).unwrap())
    };
    RouteRule { matches, ..RouteRule::to(backends.iter().map(backend).collect()) }
}

fn route(name: &str, parent: Parent, hosts: &[&str], rules: Vec<RouteRule>) -> Route {
    Route {
        name: name.into(),
        kind: RouteKind::Http,
        parents: vec![parent],
        hostnames: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
        rules,
        force_version: None,
        pin_versions: false,
    }
}

fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn prefix(path: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::Prefix(path.into()), ..RouteMatch::any() }
}

fn header(name: &'static str, value: &str) -> (HeaderName, ValueMatch) {
    (HeaderName::from_static(name), ValueMatch::Exact(value.into()))
}

#[test]
fn the_story_of_a_request_is_told() {
    let canary = RouteMatch { headers: vec![header("x-user", "7")], ..prefix("/web") };
    let post = RouteMatch { method: Some(Method::POST), ..prefix("/web") };
    let rules = vec![
        rule(vec![canary], &[("web", Some("v2"), 1)]),
        rule(vec![post, prefix("/web")], &[("web", None, 3), ("web", Some("v2"), 1)]),
    ];
    let other = rule(vec![prefix("/web")], &[("web", None, 1)]);
    let compiled = Compiled::new(snapshot(vec![
        route("front", Parent::Gateway, &[], rules),
        route("other", Parent::Gateway, &["other.test"], vec![other]),
    ]))
    .unwrap();
    let asked = request("GET", "http://shop.test/web/1?a=b", &[("x-user", "8"), ("cookie", "s=1")]);
    let told = compiled.explain(&Caller::Gateway.into(), &asked);
    let why: Vec<_> = told.tried.iter().map(|t| t.why.as_deref().unwrap_or("-")).collect();
    assert_eq!(
        why,
        [
            "host: wants other.test, is shop.test",
            "method: wants POST, is GET",
            "header x-user: wants 7, is 8",
            "-",
        ]
    );
    let matched = told.matched.unwrap();
    assert_eq!((&*matched.route, matched.rule, matched.index), ("front", 1, 1));
    assert_eq!((&*told.label, told.parent.as_deref()), ("front/1", Some("Gateway/gateway")));
    let shares: Vec<_> = told.backends.iter().map(|b| b.share_percent).collect();
    assert_eq!(shares, [75.0, 25.0]);
    let versions: Vec<_> =
        told.backends[0].versions.iter().map(|v| (&*v.version, v.share_percent)).collect();
    assert_eq!(versions, [("v1", 90.0), ("v2", 10.0)]);
    assert_eq!(told.backends[0].versions[0].instances[0].zone, "a");
    assert_eq!(told.backends[1].gets.as_deref(), Some("v2"));
    let upstream = told.upstream.unwrap();
    assert_eq!((&*upstream.method, &*upstream.path), ("GET", "/web/1?a=b"));
    assert_eq!(upstream.added, ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
    assert!(upstream.headers.contains(&("cookie".into(), "(not shown)".into())));
}

#[test]
fn a_user_is_told_the_version_that_sticks() {
    let compiled = Compiled::new(snapshot(Vec::new())).unwrap();
    let caller = Caller::Service(Some("web".parse().unwrap()));
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..32 {
        let asked = request("GET", "http://shop/x", &[("x-user", &user.to_string())]);
        let told = compiled.explain(&caller.clone().into(), &asked);
        assert_eq!((&*told.label, told.matched.is_none()), ("shop", true));
        assert!(told.backends[0].sticky.as_ref().unwrap().known);
        seen.insert(told.backends[0].gets.clone().unwrap());
    }
    assert_eq!(seen.len(), 2, "users are on both versions");
    let told = compiled.explain(&caller.clone().into(), &request("GET", "http://shop/x", &[]));
    assert_eq!(told.backends[0].gets, None);
}

#[test]
fn what_nothing_takes_is_told_with_the_answer() {
    let only = rule(vec![prefix("/a")], &[("web", None, 1)]);
    let compiled =
        Compiled::new(snapshot(vec![route("a", Parent::Gateway, &[], vec![only])])).unwrap();
    let told = compiled.explain(&Caller::Gateway.into(), &request("GET", "http://x/b", &[]));
    assert_eq!(told.tried[0].differs, Some("path"));
    let answer = told.answer.unwrap();
    assert_eq!((answer.status, answer.flag), (404, "NR"));
    let told =
        compiled.explain(&Caller::Service(None).into(), &request("GET", "http://nobody/", &[]));
    assert!(told.answer.unwrap().error.contains("nobody"));
    assert_eq!(told.parent, None);
}

#[test]
fn a_thousand_routes_are_told_in_short() {
    let rules = |path: String| vec![rule(vec![prefix(&path)], &[("web", None, 1)])];
    let routes = (0..1000).map(|i| {
        route(&format!("r{i}"), Parent::Gateway, &[], rules(format!("/longer/than/that/{i}")))
    });
    let last = route("last", Parent::Gateway, &[], rules("/x".to_owned()));
    let compiled = Compiled::new(snapshot(routes.chain([last]).collect())).unwrap();
    let told = compiled.explain(&Caller::Gateway.into(), &request("GET", "http://x/x", &[]));
    assert_eq!((told.tried.len(), told.not_told), (1, 1000));
}

#[test]
fn a_preflight_takes_the_rule_of_the_call_to_come() {
    let cors = Cors {
        allow_origins: vec![OriginPattern::parse("https://*.shop.test").unwrap()],
        allow_credentials: false,
        allow_methods: Names::Any,
        allow_headers: Names::Any,
        expose_headers: Names::default(),
        max_age: 5,
    };
    let post = RouteMatch { method: Some(Method::POST), ..prefix("/web") };
    let with = RouteRule {
        filters: vec![RouteFilter::Cors(cors)],
        ..rule(vec![post], &[("web", None, 1)])
    };
    let routes = vec![route("front", Parent::Gateway, &[], vec![with])];
    let compiled = Compiled::new(snapshot(routes)).unwrap();
    for (origin, allowed) in [("https://a.shop.test", true), ("https://evil.test", false)] {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        let asked = request("OPTIONS", "http://x/web", &headers);
        let told = compiled.explain(&Caller::Gateway.into(), &asked);
        assert!(told.preflight && told.answer.is_none() && told.upstream.is_none());
        assert_eq!((&*told.label, told.matched.unwrap().index), ("front/0", 0));
        assert_eq!(told.does.cors.unwrap().allowed, Some(allowed));
    }
}

#[test]
fn a_backend_that_cannot_be_used_is_answered() {
    let mut broken = rule(vec![prefix("")], &[("web", None, 1), ("shop", None, 0)]);
    broken.backends[0].invalid = Some("it is of another namespace".into());
    let routes = vec![route("front", Parent::Gateway, &[], vec![broken])];
    let compiled = Compiled::new(snapshot(routes)).unwrap();
    let told = compiled.explain(&Caller::Gateway.into(), &request("GET", "http://x/", &[]));
    assert_eq!(told.backends[0].service, "web");
    assert!(told.backends[0].invalid.is_some() && told.backends[1].invalid.is_none());
    assert_eq!(told.answer.map(|answer| answer.status), Some(500));
    assert_eq!(told.upstream.map(|upstream| upstream.backend), None);
}

#[test]
fn a_user_sticks_by_the_header_that_a_filter_sets() {
    let set = HeaderModifier {
        set: vec![(HeaderName::from_static("x-user"), "7".parse().unwrap())],
        ..HeaderModifier::default()
    };
    let with = RouteRule {
        filters: vec![RouteFilter::RequestHeaderModifier(set)],
        ..rule(vec![prefix("")], &[("shop", None, 1)])
    };
    let routes = vec![route("front", Parent::Gateway, &[], vec![with])];
    let compiled = Compiled::new(snapshot(routes)).unwrap();
    let gets = |told: Explanation| told.gets.map(|gets| (gets.version, gets.by));
    let inside = request("GET", "http://shop/", &[("x-user", "7")]);
    let direct = gets(compiled.explain(&Caller::Service(None).into(), &inside));
    for user in ["1", "2", "3", "4", "5"] {
        let asked = request("GET", "http://x/", &[("x-user", user)]);
        assert_eq!(gets(compiled.explain(&Caller::Gateway.into(), &asked)), direct, "{user}");
    }
    assert_eq!(direct.unwrap().1, "sticky");
}

#[test]
fn panic_and_a_forced_version_are_told() {
    let mut snapshot = snapshot(vec![Route {
        force_version: Some(ForceVersion::Header(HeaderName::from_static("x-want"))),
        pin_versions: true,
        ..route("f", Parent::Gateway, &[], vec![rule(vec![prefix("")], &[("web", None, 1)])])
    }]);
    snapshot.instances[0].healthy = false;
    let compiled = Compiled::new(snapshot).unwrap();
    let asked =
        request("GET", "http://x/", &[("x-want", "v2"), ("baggage", "weir.version=web:v1")]);
    let told = compiled.explain(&Caller::Gateway.into(), &asked);
    assert!(told.backends[0].versions[0].panic && !told.backends[0].versions[1].panic);
    assert_eq!(told.gets.map(|gets| (gets.version, gets.by)), Some(("v2".to_owned(), "forced")));
    let baggage = ("baggage".to_owned(), "weir.version=web:v2".to_owned());
    assert!(told.does.pins_version && told.upstream.unwrap().headers.contains(&baggage));
}

fn some_value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        3 => prop::sample::select(vec!["1", "x y"]).prop_map(|v| ValueMatch::Exact(v.into())),
        1 => prop::sample::select(vec!["[12]", ".* .*"])
            .prop_map(|v| ValueMatch::Regex(Pattern::parse(v).unwrap())),
    ]
}

fn some_match() -> impl Strategy<Value = RouteMatch> {
    let pattern = || {
        let texts = vec!["/a.*", "/.*/b", "a+", ".*b", "[ab/]*"];
        prop::sample::select(texts).prop_map(|text| Pattern::parse(text).unwrap())
    };
    let path = prop_oneof![
        4 => "(/[ab]){0,3}".prop_map(|path| PathMatch::Prefix(path.into())),
        3 => "(/[ab]){1,3}".prop_map(|path| PathMatch::Exact(path.into())),
        2 => pattern().prop_map(PathMatch::Regex),
        1 => "[ab]".prop_map(|method| PathMatch::GrpcMethod(method.into())),
        1 => (prop::option::of(pattern()), pattern()).prop_map(|(service, method)| {
            PathMatch::GrpcRegex { service, method: Some(method) }
        }),
    ];
    let method = prop::option::weighted(0.3, prop_oneof![Just(Method::GET), Just(Method::POST)]);
    let named =
        || prop::collection::btree_map(prop::sample::select(vec!["a", "b"]), some_value(), 0..=2);
    (path, method, named(), named()).prop_map(|(path, method, headers, query)| RouteMatch {
        path,
        method,
        headers: headers.into_iter().map(|(n, v)| (HeaderName::from_static(n), v)).collect(),
        query: query.into_iter().map(|(name, value)| (name.into(), value)).collect(),
    })
}

fn some_routes() -> impl Strategy<Value = Vec<Route>> {
    let hosts = vec!["a.test", "*.test", "*.a.test", "b.a.test"];
    let hosts = prop::sample::subsequence(hosts, 0..=2);
    let rules = prop::collection::vec(prop::collection::vec(some_match(), 1..4), 1..4);
    let kind = prop::sample::select(vec![RouteKind::Http, RouteKind::Grpc]);
    prop::collection::vec((hosts, rules, any::<bool>(), kind), 0..6).prop_map(|routes| {
        let routes = routes.into_iter().enumerate();
        let routes = routes.map(|(i, (hosts, rules, mesh, kind))| {
            let rules = rules.into_iter().map(|matches| rule(matches, &[("web", None, 1)]));
            let parent =
                if mesh { Parent::Service("web".parse().unwrap()) } else { Parent::Gateway };
            Route { kind, ..route(&format!("r{i}"), parent, &hosts, rules.collect()) }
        });
        routes.collect()
    })
}

/// Also with paths in other forms than the canonical one.
fn some_request() -> impl Strategy<Value = (bool, Request<()>)> {
    let uri = (
        prop::sample::select(vec!["a.test", "b.a.test", "c.b.a.test", "x.test", "localhost"]),
        "(//?([ab]|%61)){1,3}",
        prop::sample::select(vec!["", "?a=1", "?a=2", "?b=x+y&a=1", "?a=%31&b=x%20y&a=2"]),
    );
    let method = prop::sample::select(vec!["GET", "POST"]);
    let values = || prop::collection::vec(prop::sample::select(vec!["1", "2", "x y"]), 0..=2);
    (any::<bool>(), uri, method, values(), values()).prop_map(
        |(gateway, (host, path, query), method, a, b)| {
            let host = if gateway { host } else { "web" };
            let a = a.iter().map(|value| ("a", *value));
            let headers: Vec<_> = a.chain(b.iter().map(|value| ("b", *value))).collect();
            (gateway, request(method, &format!("http://{host}{path}{query}"), &headers))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The first candidate without a difference is what the matcher finds.
    #[test]
    fn explains_what_the_matcher_finds(routes in some_routes(), (gateway, asked) in some_request()) {
        let compiled = Compiled::new(snapshot(routes)).unwrap();
        let caller = if gateway { Caller::Gateway } else { Caller::Service(None) };
        let as_asked = asked.clone();
        let asked = compiled.canonical(&asked).unwrap();
        let found = target::find(&compiled.table, &compiled.connected(&caller.clone().into()), &asked);
        let label = found.ok().map(|action| action.label.to_string());
        let parent = compiled.parent(&caller, &asked).unwrap();
        let places = compiled.places(&parent);
        let routes = &compiled.snapshot.routes;
        let candidates: Vec<_> = places.iter().filter_map(|place| place.of(routes)).collect();
        let host = target::host(&asked).unwrap();
        let first = candidates.iter().find(|candidate| candidate.why_not(host, &asked).is_none());
        let first = first.map(|first| format!("{}/{}", first.route.name, first.rule));
        // A service without routes takes requests itself.
        let by_default = !gateway && candidates.is_empty();
        prop_assert_eq!(first.or(by_default.then(|| "web".to_owned())), label.clone());
        let told = compiled.explain(&caller.into(), &as_asked);
        prop_assert_eq!(told.label, label.unwrap_or_default());
    }
}

#[test]
fn an_audience_is_told_with_its_reason() {
    let audience = |by, version: &str| pb::Audience { by: Some(by), version: version.into() };
    let headers = [("x-beta".to_owned(), "yes".to_owned())].into();
    let by_header = pb::audience::By::Headers(pb::HeaderAudience { headers });
    let by_claim =
        pb::audience::By::Claim(pb::ClaimAudience { name: "g".into(), values: vec!["x".into()] });
    let mut shop = service("shop", &[("v1", 1), ("v2", 0), ("v3", 0)], Some("x-user"));
    shop.audiences = vec![audience(by_header, "v2"), audience(by_claim, "v3")];
    shop.mirror = Some(pb::VersionMirror { version: "v3".into(), per_million: 250_000 });
    let mut snapshot = snapshot(vec![]);
    let shop = wire::service(&shop, "").unwrap();
    snapshot.services.insert(shop.name.clone(), shop);
    let compiled = Compiled::new(snapshot).unwrap();
    let asking = Asking {
        claims: serde_json::json!({"g": "x"}).as_object().cloned(),
        ..Caller::Service(None).into()
    };
    let ask = |headers: &[(&str, &str)]| {
        let mut told = compiled.explain(&asking, &request("GET", "http://shop/", headers));
        (told.gets.unwrap(), told.backends.remove(0))
    };
    let (gets, backend) = ask(&[("x-beta", "yes"), ("x-user", "me")]);
    assert_eq!((&*gets.version, gets.by), ("v2", "audience"));
    let audiences: Vec<_> = backend.audiences.iter().map(|a| (&*a.who, a.takes)).collect();
    // Nobody verifies tokens there.
    let wanted = [("header x-beta: yes", Some(true)), ("claim g is x", Some(false))];
    assert_eq!(audiences, wanted);
    let mirror = backend.mirror.unwrap();
    assert_eq!((&*mirror.version, mirror.percent), ("v3", 25.0));
    let (gets, _) = ask(&[("x-beta", "no"), ("x-user", "me")]);
    assert_eq!((&*gets.version, gets.by), ("v1", "sticky"));
}
