//! What `weir explain` tells is what happens.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_tests::{Http, eventually};

use crate::{file, mesh, sidecar, turn, weir, weir_with_input};

const ROUTES: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: told}
spec:
  parentRefs: [{name: gateway}, {group: \"\", kind: Service, name: web}]
  rules:
    - name: seven
      matches: [{path: {type: PathPrefix, value: /told}, headers: [{name: x-user, value: \"7\"}]}]
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier:
            set: [{name: x-set, value: \"by weir\"}]
            remove: [x-gone]
      backendRefs: [{name: web-v2}]
    - matches: [{path: {type: Exact, value: /told/exact}, method: POST}]
      backendRefs: [{name: web-v1}]
    - matches: [{path: {type: PathPrefix, value: /told}, queryParams: [{name: q, value: \"a b\"}]}]
      timeouts: {request: 10s}
      backendRefs: [{name: shop}]
    - matches: [{path: {type: PathPrefix, value: /told}}]
      backendRefs: [{name: web-v1}]
";

/// One request: by the gateway or a sidecar, method, path, headers.
type Asked = (bool, &'static str, &'static str, Vec<(&'static str, &'static str)>);

fn explained((gateway, method, path, headers): &Asked) -> Value {
    let base = if *gateway { mesh().gateway.as_str() } else { "http://web" };
    let url = format!("{base}{path}");
    let texts: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let mut args = vec!["explain", method, &url, "-o", "json"];
    args.extend(if *gateway { vec!["--gateway"] } else { vec!["--from", "caller"] });
    texts.iter().for_each(|text| args.extend(["-H", text]));
    weir(&args).json()
}

/// Headers that depend on the connection, or on the trace.
fn is_of_this_call(name: &str) -> bool {
    let own = [
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "connection",
        "traceparent",
        // What is left of the deadline then.
        "x-envoy-expected-rq-timeout-ms",
    ];
    own.contains(&name) || name.starts_with("x-b3") || name == "tracestate" || name == "b3"
}

#[tokio::test]
async fn what_is_told_is_what_happens() {
    let _turn = turn().await;
    let path = file("told.yaml", ROUTES);
    weir(&["apply", "-f", path.to_str().unwrap(), "--wait"]).ok();
    let mut asked: Vec<Asked> = Vec::new();
    for gateway in [true, false] {
        asked.extend([
            (gateway, "GET", "/told/1", vec![("x-user", "7"), ("x-gone", "1"), ("x-kept", "1")]),
            (gateway, "GET", "/told/2", vec![("x-user", "8"), ("x-gone", "1")]),
            (gateway, "POST", "/told/exact", vec![]),
            (gateway, "GET", "/told/exact", vec![]),
            (gateway, "GET", "/told/q?z=1&q=a+b", vec![("x-user", "ada")]),
            (gateway, "GET", "/told/q?q=a%20b", vec![("x-user", "grace")]),
        ]);
    }
    for one in &asked {
        let told = explained(one);
        let (gateway, method, path, headers) = one;
        let http = if *gateway { Http::new(&mesh().gateway) } else { sidecar("web") };
        let mut call = http.call(method.parse().unwrap(), path);
        for (name, value) in headers {
            call = call.header(name, value);
        }
        let seen = call.ok().await;
        let gets = &told["backends"][0]["gets"];
        assert_eq!(seen["version"], *gets, "{one:?}: {told:#}");
        let head: Vec<&str> =
            seen["head"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        let target = head[0].split(' ').nth(1).unwrap();
        assert_eq!(told["upstream"]["path"], target, "{one:?}");
        let of_head: BTreeMap<String, String> = head[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .filter(|(name, _)| !is_of_this_call(name))
            .collect();
        let pairs = told["upstream"]["headers"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let of_told: BTreeMap<String, String> = pairs
            .map(|pair| (text(&pair[0]), text(&pair[1])))
            .filter(|(name, _)| !is_of_this_call(name))
            .collect();
        assert_eq!(of_told, of_head, "{one:?}");
        let side = if *gateway { "gateway" } else { "outbound" };
        let bare = path.split('?').next().unwrap();
        let label = told["label"].as_str().unwrap();
        eventually("the access log has the request", || async {
            let lines = mesh().access_log();
            let line = lines.iter().rev().map(|(_, line)| line).find(|line| {
                line["side"] == side && line["path"] == bare && line["method"] == *method
            });
            line.filter(|line| line["route"] == label && line["version"] == *gets).map(drop)
        })
        .await;
    }
    weir(&["delete", "HTTPRoute", "told"]).ok();
}

#[tokio::test]
async fn the_story_says_why_and_a_proposal_can_be_asked() {
    let _turn = turn().await;
    let args = ["explain", "/told/x", "-H", "x-user: 8", "-f", "-"];
    let text = weir_with_input(&args, ROUTES).ok();
    for wanted in [
        "GET http://localhost/told/x from outside, at the gateway",
        "no  told rule 0 match 0: /told/* x-user: 7",
        "header x-user: wants 7, is 8",
        "query q: wants a b, is not there",
        "yes told rule 3 match 0: /told/*",
        "HTTPRoute told, rule 3 takes it",
        "web-v1: 100% of requests (weight 1)",
        "+ x-forwarded-host: localhost",
    ] {
        assert!(text.contains(wanted), "{wanted}\nin\n{text}");
    }
    let now = weir(&["explain", "/told/x", "-o", "json"]).json();
    assert_eq!((&now["answer"]["status"], &now["matched"]), (&json!(404), &Value::Null), "{now}");
    let default =
        weir(&["explain", "--from", "caller", "http://shop/x", "-H", "x-user: 7", "-o", "json"])
            .json();
    assert_eq!((&default["label"], &default["parent"]), (&json!("shop"), &json!("Service/shop")));
    let seen = sidecar("shop").get("/x").header("x-user", "7").ok().await;
    assert_eq!(seen["version"], default["backends"][0]["gets"]);
    for (args, wanted) in [
        (["explain", "--from", "callr", "http://shop/"], "nearest: caller"),
        (["explain", "--from", "caller", "http://shpo/"], "nearest: shop"),
    ] {
        let error = weir(&args).failed();
        assert!(error.contains(wanted), "{error}");
    }
}

const MORE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: more, annotations: {weir.dev/force-version: \"header:x-want\"}}
spec:
  parentRefs: [{name: gateway}, {group: \"\", kind: Service, name: web}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /more/old}}]
      filters:
        - type: RequestRedirect
          requestRedirect: {hostname: new.test, statusCode: 308, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
    - matches: [{path: {type: RegularExpression, value: \"/more/[0-9]+\"}, headers: [{name: x-user, type: RegularExpression, value: \"a.*\"}]}]
      timeouts: {request: 5s, backendRequest: 2s}
      retry: {attempts: 2, codes: [503]}
      backendRefs: [{name: web-v2}]
    - matches: [{path: {type: PathPrefix, value: /more/rewrite}}]
      filters:
        - type: URLRewrite
          urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /rewritten}}
        - type: RequestMirror
          requestMirror: {backendRef: {name: shop}, percent: 10}
      backendRefs: [{name: web-v1}]
    - matches: [{path: {type: PathPrefix, value: /more/direct}}]
      filters: [{type: ExtensionRef, extensionRef: {group: weir.dev, kind: HTTPRouteFilter, name: direct}}]
      backendRefs: [{name: web}]
    - name: closed
      matches: [{path: {type: PathPrefix, value: /more/closed}}]
      backendRefs: [{name: web}]
    - matches: [{path: {type: PathPrefix, value: /more}}]
      backendRefs: [{name: web}]
---
apiVersion: weir.dev/v1alpha1
kind: HTTPRouteFilter
metadata: {name: direct}
spec:
  directResponse: {status: 418, body: tea}
---
apiVersion: weir.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: closed}
spec:
  targetRefs: [{kind: HTTPRoute, name: more, sectionName: closed}]
  action: Deny
  rules: [{name: nobody}]
---
apiVersion: weir.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: often}
spec:
  targetRefs: [{kind: HTTPRoute, name: more}]
  rules: [{name: each, key: [{header: x-user}], limit: {requests: 1000, per: 1s}}]
";

#[tokio::test]
async fn filters_and_policies_do_what_is_told() {
    let _turn = turn().await;
    let path = file("more.yaml", MORE);
    weir(&["apply", "-f", path.to_str().unwrap(), "--wait"]).ok();
    for gateway in [true, false] {
        let send = |path: &'static str, headers: Vec<(&'static str, &'static str)>| async move {
            let told = explained(&(gateway, "GET", path, headers.clone()));
            let http = if gateway { Http::new(&mesh().gateway) } else { sidecar("web") };
            let call = headers.iter().fold(http.get(path), |call, (n, v)| call.header(n, v));
            (told, call.send().await)
        };
        let (told, reply) = send("/more/old/x?a=b", vec![]).await;
        assert_eq!(told["redirect"]["status"], reply.status.as_u16());
        let location = told["redirect"]["location"].as_str().unwrap();
        assert_eq!(location, reply.header("location"), "{told:#}");
        assert_eq!(told["upstream"], Value::Null);

        let (told, reply) = send("/more/17", vec![("x-user", "ada")]).await;
        assert_eq!((&told["label"], reply.status.as_u16()), (&json!("more/1"), 200), "{told:#}");
        assert_eq!(reply.json()["version"], told["gets"]["version"]);
        assert_eq!((&told["timeoutMs"], &told["backendTimeoutMs"]), (&json!(5000), &json!(2000)));
        assert_eq!(told["retry"], json!({"codes": [503], "attempts": 2, "backoffMs": null}));
        let limit = &told["limits"][0];
        assert_eq!((&limit["policy"], &limit["key"]), (&json!("often"), &json!(["header x-user"])));
        let (told, _) = send("/more/17", vec![("x-user", "bob")]).await;
        assert_eq!(told["label"], "more/5");
        assert!(told["tried"].to_string().contains("wants ~a.*, is bob"), "{told:#}");

        let (told, reply) = send("/more//rewrite/./%78?q=%2f", vec![]).await;
        assert_eq!(told["canonicalPath"], "/more/rewrite/x");
        let head = reply.json()["head"][0].as_str().unwrap().to_owned();
        assert_eq!(head.split(' ').nth(1), told["upstream"]["path"].as_str(), "{told:#}");
        assert_eq!(told["mirrors"][0]["percent"], 10.0);
        let (told, reply) = send("/more/%2fx", vec![]).await;
        assert_eq!(told["answer"]["status"], reply.status.as_u16());
        assert_eq!((reply.status.as_u16(), &told["canonicalPath"]), (400, &Value::Null));

        let (told, reply) = send("/more/direct", vec![]).await;
        assert_eq!((&told["answer"]["status"], reply.status.as_u16()), (&json!(418), 418));
        let (told, reply) = send("/more/closed", vec![]).await;
        assert_eq!((&told["answer"]["status"], reply.status.as_u16()), (&json!(403), 403));
        let verdict = &told["verdicts"][0];
        assert_eq!((&verdict["policy"], &verdict["rule"]), (&json!("closed"), &json!("nobody")));
        assert_eq!(verdict["at"], if gateway { "gateway" } else { "caller" });
        for version in ["v1", "v2"] {
            let (told, reply) = send("/more/any", vec![("x-want", version)]).await;
            assert_eq!(told["gets"]["by"], "forced", "{told:#}");
            assert_eq!(
                (&told["gets"]["version"], &reply.json()["version"]),
                (&json!(version), &json!(version))
            );
        }
    }
    weir(&["delete", "-f", path.to_str().unwrap()]).ok();
}

const WHO: &str = "apiVersion: weir.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: who}
spec:
  targetRefs: [{kind: Service, name: web}]
  action: Allow
  rules:
    - {name: callers, from: {services: [caller]}, to: {paths: [{type: PathPrefix, value: /open}]}}
    - {name: editors, to: {paths: [{type: PathPrefix, value: /edit}]}, when: {claims: [{name: role, values: [editor]}]}}
---
apiVersion: weir.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: tokens}
spec:
  targetRefs: [{kind: Service, name: web}]
  required: false
  issuers: [{issuer: here, audiences: [web], jwks: {uri: \"http://127.0.0.1:9/keys\"}}]
";

/// What the router of a service says.
fn verdict(args: &[&str]) -> Value {
    let all = [&["explain", "-f", "-", "-o", "json"], args].concat();
    let told = weir_with_input(&all, WHO).json();
    let verdicts = told["verdicts"].as_array().unwrap();
    verdicts.iter().find(|v| v["at"] == "web").unwrap_or_else(|| panic!("{told:#}")).clone()
}

#[tokio::test]
async fn who_may_is_told_by_identity_and_claims() {
    let _turn = turn().await;
    let allowed = |verdict: &Value| verdict["allowed"].as_bool().unwrap();
    let open = verdict(&["--from", "caller", "http://web/open/x"]);
    assert_eq!((allowed(&open), &open["rule"]), (true, &json!("callers")), "{open:#}");
    assert!(!allowed(&verdict(&["--from", "shop", "http://web/open/x"])));
    let peer = "spiffe://weir.local/ns/default/sa/caller";
    assert!(allowed(&verdict(&["--peer", peer, "http://web/open/x"])));
    let edit = verdict(&["--from", "caller", "http://web/edit"]);
    assert_eq!((allowed(&edit), &edit["dependsOnClaims"]), (false, &json!(["role"])), "{edit:#}");
    let claims = |role: &str| {
        let claims = format!("{{\"role\": \"{role}\"}}");
        verdict(&["--from", "caller", "http://web/edit", "--claims", &claims])
    };
    assert!(allowed(&claims("editor")) && !allowed(&claims("reader")));
    assert_eq!(claims("reader")["dependsOnClaims"], json!([]));
    let text = weir_with_input(&["explain", "-f", "-", "--from", "shop", "http://web/open"], WHO);
    assert!(text.stdout.contains("at web: denied"), "{text:?}");
    assert!(text.stdout.contains("  refused there: access denied: no rule of"), "{text:?}");
    let wrong = weir(&["explain", "http://web/", "--claims", "[]"]).failed();
    assert!(wrong.contains("--claims is no JSON object"), "{wrong}");
}
