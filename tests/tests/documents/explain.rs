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
    let url = if *gateway { (*path).to_owned() } else { format!("http://web{path}") };
    let texts: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let mut args = vec!["explain", method, &url, "-o", "json"];
    args.extend(if *gateway { vec!["--gateway"] } else { vec!["--from", "caller"] });
    texts.iter().for_each(|text| args.extend(["-H", text]));
    weir(&args).json()
}

/// Headers that depend on the connection, or on the trace.
fn is_of_this_call(name: &str) -> bool {
    let own = ["host", "x-forwarded-for", "x-forwarded-host", "connection", "traceparent"];
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
