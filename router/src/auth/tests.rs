use std::sync::Arc;

use http::{HeaderMap, Method};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use weir_mesh::model::{Options, Snapshot};
use weir_mesh::policy::{Attached, Policy};
use weir_mesh::wire;
use weir_proto::weir::mesh::v1 as pb;

use super::*;

const AUTH: &str = "spiffe://weir.local/ns/default/sa/auth";
const CART: &str = "spiffe://weir.local/ns/shop/sa/cart";

fn guards(policies: &[(&str, Value)], deny_by_default: bool) -> Arc<Guards> {
    let service = |name: &str| pb::Service {
        name: name.into(),
        protocol: pb::Protocol::Grpc.into(),
        versions: vec![pb::VersionWeight { version: "v1".into(), weight: 1, addresses: vec![] }],
        ..Default::default()
    };
    let message = pb::Snapshot {
        trust_domain: "weir.local".into(),
        services: vec![service("web"), service("other")],
        ..Default::default()
    };
    let mut snapshot: Snapshot = wire::snapshot(&message).unwrap();
    snapshot.options = Options { deny_by_default, ..Options::default() };
    snapshot.policies = policies
        .iter()
        .enumerate()
        .map(|(i, (target, spec))| {
            let mut spec = spec.clone();
            spec["targetRefs"] = match *target {
                "mesh" => json!([{ "kind": "Mesh", "name": "mesh" }]),
                "gateway" => json!([{ "kind": "Gateway", "name": "gateway" }]),
                name => json!([{ "kind": "Service", "name": name }]),
            };
            Policy::read("AuthorizationPolicy", &format!("p{i}"), &spec, "").unwrap()
        })
        .collect();
    let attached = Attached::new(&snapshot.policies);
    Guards::new(&snapshot, &attached, &|_| false, &mut Memory::default()).unwrap()
}

struct Ask {
    identity: &'static str,
    method: Method,
    path: String,
    headers: HeaderMap,
    claims: Option<Map<String, Value>>,
}

fn ask(identity: &'static str, path: &str) -> Ask {
    let (headers, claims) = (HeaderMap::new(), None);
    Ask { identity, method: Method::GET, path: path.to_owned(), headers, claims }
}

impl Ask {
    fn claims(mut self, claims: Value) -> Self {
        self.claims = claims.as_object().cloned();
        self
    }

    fn headers(mut self, headers: &[(&'static str, &str)]) -> Self {
        for (name, value) in headers {
            self.headers.append(*name, value.parse().unwrap());
        }
        self
    }

    fn of(&self, guards: &Guards, service: &str) -> Decision {
        let held = [guards.of_service(service)];
        let scope = Scope {
            guards: &held,
            trust_domain: &guards.trust_domain,
            deny_by_default: guards.deny_by_default,
        };
        let subject = Subject {
            identity: self.identity,
            host: "web.example.com",
            path: &self.path,
            grpc: &self.path,
            method: &self.method,
            headers: &self.headers,
            claims: self.claims.as_ref(),
        };
        decide(&scope, &subject)
    }

    fn passes(&self, guards: &Guards, service: &str) -> bool {
        self.of(guards, service).allowed
    }
}

fn one(spec: Value) -> Arc<Guards> {
    guards(&[("web", spec)], false)
}

#[test]
fn without_policies_there_is_nothing_to_ask() {
    let snapshot =
        wire::snapshot(&pb::Snapshot { trust_domain: "weir.local".into(), ..Default::default() });
    let snapshot = snapshot.unwrap();
    let attached = Attached::new(&snapshot.policies);
    assert!(Guards::new(&snapshot, &attached, &|_| false, &mut Memory::default()).is_none());
}

#[test]
fn an_allow_lets_nothing_else_pass_and_only_at_its_target() {
    let from = json!({ "identities": [AUTH], "namespaces": ["shop"] });
    let guards = one(json!({ "action": "Allow", "rules": [{ "name": "n", "from": from }] }));
    let allowed = ask(AUTH, "/").of(&guards, "web");
    assert_eq!((allowed.allowed, allowed.why), (true, Why::Allowed));
    assert_eq!((allowed.policy.as_deref(), allowed.rule.as_deref()), (Some("p0"), Some("n")));
    assert!(ask(CART, "/").passes(&guards, "web"));
    for stranger in ["spiffe://weir.local/ns/default/sa/auth2", "", "spiffe://x/ns/shop/sa/cart"] {
        let decision = ask(stranger, "/").of(&guards, "web");
        assert_eq!((decision.allowed, decision.why), (false, Why::NotAllowed), "{stranger}");
        assert_eq!(decision.policy.as_deref(), Some("p0"));
        assert!(ask(stranger, "/").passes(&guards, "other"), "another service is not guarded");
    }
    assert!(!ask(AUTH, "/").passes(&one(json!({ "action": "Allow" })), "web"), "no rule, nothing");
}

#[test]
fn a_deny_wins_over_every_allow_and_the_mesh_counts_everywhere() {
    let deny = json!({ "action": "Deny", "rules": [{
        "to": { "paths": [{ "type": "PathPrefix", "value": "/admin" }] },
        "from": { "notIdentities": [AUTH] },
    }] });
    let guards =
        guards(&[("mesh", deny), ("web", json!({ "action": "Allow", "rules": [{}] }))], false);
    for service in ["web", "other"] {
        for (path, passes) in
            [("/admin", false), ("/admin/x", false), ("/administrator", true), ("/", true)]
        {
            assert_eq!(ask(CART, path).passes(&guards, service), passes, "{path}");
            assert_eq!(ask("", path).passes(&guards, service), passes, "{path}");
            assert!(ask(AUTH, path).passes(&guards, service), "{path}");
        }
    }
}

#[test]
fn what_nobody_decides_is_left_to_the_default() {
    let decision = ask(AUTH, "/").of(&guards(&[], true), "web");
    assert_eq!(
        (decision.allowed, decision.why, decision.policy.clone()),
        (false, Why::Default, None)
    );
    assert_eq!(decision.finding().policy_name(), "default");
    let allow = json!({ "action": "Allow", "rules": [{ "from": { "services": ["auth"] } }] });
    let guards = guards(&[("web", allow)], true);
    assert!(ask(AUTH, "/").passes(&guards, "web"));
    assert!(!ask(AUTH, "/").passes(&guards, "other"));
}

#[test]
fn methods_are_compared_exactly_and_conditions_must_be_proven() {
    let to = json!({ "methods": ["GET"], "hosts": ["*.example.com"] });
    let when = json!({ "claims": [{ "name": "realm.roles", "values": ["admin", "7"] }] });
    let guards = one(json!({ "action": "Allow", "rules": [{ "to": to, "when": when }] }));
    let with = |claims: Value| ask("", "/").claims(claims).passes(&guards, "web");
    assert!(with(json!({ "realm": { "roles": ["user", "admin"] } })));
    assert!(with(json!({ "realm": { "roles": 7 } })));
    assert!(with(json!({ "realm.roles": "admin" })));
    for claims in [
        json!({}),
        json!({ "realm": "admin" }),
        json!({ "realm": { "roles": ["administrator"] } }),
        json!({ "realm": { "roles": null } }),
        json!({ "realm": { "roles": { "admin": true } } }),
        json!({ "realm.roles": "user", "realm": { "roles": "admin" } }),
    ] {
        assert!(!with(claims.clone()), "{claims}");
    }
    assert!(!ask("", "/").passes(&guards, "web"), "no token was verified");
    let mut other = ask("", "/").claims(json!({ "realm": { "roles": "admin" } }));
    other.method = Method::from_bytes(b"get").unwrap();
    assert!(!other.passes(&guards, "web"));
}

#[test]
fn a_header_that_is_there_twice_cannot_choose() {
    let rules = json!([{ "when": { "headers": [{ "name": "x-a", "values": ["1"] }] } }]);
    let (one_value, two) = ([("x-a", "1")], [("x-a", "2"), ("x-a", "1")]);
    let allow = one(json!({ "action": "Allow", "rules": rules }));
    assert!(ask("", "/").headers(&one_value).passes(&allow, "web"));
    assert!(!ask("", "/").headers(&two).passes(&allow, "web"));
    assert!(!ask("", "/").passes(&allow, "web"));
    let deny = one(json!({ "action": "Deny", "rules": rules }));
    assert!(!ask("", "/").headers(&two).passes(&deny, "web"));
    assert!(ask("", "/").headers(&[("x-a", "2")]).passes(&deny, "web"));
}

#[test]
fn an_audit_only_reports() {
    let deny = json!({ "action": "Deny", "mode": "Audit", "rules": [{ "name": "all" }] });
    let decision = ask(AUTH, "/").of(&one(deny), "web");
    assert!(decision.allowed);
    let audited = decision.audited.unwrap().to_string();
    assert_eq!(audited, "AuthorizationPolicy p0, rule all");
    let allow = json!({ "action": "Allow", "mode": "Audit", "rules": [{ "from": { "services": ["auth"] } }] });
    let guards = one(allow);
    assert_eq!(ask(AUTH, "/").of(&guards, "web").audited, None);
    let decision = ask(CART, "/").of(&guards, "web");
    assert!(decision.allowed && decision.audited.is_some());
}

#[test]
fn bytes_are_decided_by_identity_alone_and_a_deny_that_asks_for_more_denies_more() {
    let to = json!({ "paths": [{ "type": "PathPrefix", "value": "/x" }] });
    let tcp = |spec: Value, identity: &str| {
        let guards = one(spec);
        guards.decide_tcp(identity, "web").allowed
    };
    let from = json!({ "services": ["auth"] });
    let allow = json!({ "action": "Allow", "rules": [{ "from": from }] });
    assert!(tcp(allow.clone(), AUTH) && !tcp(allow, CART));
    assert!(!tcp(json!({ "action": "Allow", "rules": [{ "from": from, "to": to }] }), AUTH));
    let deny = json!({ "action": "Deny", "rules": [{ "from": from, "to": to }] });
    assert!(!tcp(deny.clone(), AUTH) && tcp(deny, CART));
}

#[test]
fn who_may_not_hears_of_policies_only_where_the_mesh_lets_them() {
    let deny = one(json!({ "action": "Deny", "rules": [{ "name": "all" }] }));
    let finding = ask(AUTH, "/").of(&deny, "web").finding();
    let told = Denial::by_policy(&finding, AUTH, false);
    assert_eq!(told.to_string(), "access denied: AuthorizationPolicy p0, rule all");
    let hidden = Denial::by_policy(&finding, AUTH, true);
    assert_eq!(hidden.to_string(), "access denied");
    assert!(hidden.full.contains(AUTH) && hidden.full.contains("p0"), "{}", hidden.full);
}

proptest! {
    /// One more Deny never lets more pass; one more rule of an Allow never less.
    #[test]
    fn policies_are_monotonic(
        paths in proptest::collection::vec("/[ab]{1,2}(/[ab]){0,2}", 1..4),
        more in "/[ab]{1,2}(/[ab]){0,2}", asked in "/[ab]{1,2}(/[ab]){0,3}",
    ) {
        let rule = |path: &String| json!({ "to": { "paths": [{ "type": "PathPrefix", "value": path }] } });
        let rules: Vec<_> = paths.iter().map(rule).collect();
        let longer: Vec<_> = paths.iter().chain([&more]).map(rule).collect();
        let allow = |rules: &[Value]| ("web", json!({ "action": "Allow", "rules": rules }));
        let deny = ("web", json!({ "action": "Deny", "rules": [rule(&more)] }));
        let passes = |policies: &[(&str, Value)]| ask("", &asked).passes(&guards(policies, false), "web");
        let before = passes(&[allow(&rules)]);
        prop_assert!(!before || passes(&[allow(&longer)]));
        prop_assert!(before || !passes(&[allow(&rules), deny.clone()]));
        let prefix = asked == more || asked.starts_with(&format!("{more}/"));
        prop_assert!(!prefix || !passes(&[allow(&longer), deny]));
    }
}
