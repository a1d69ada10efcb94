//! `weir replay` of what a gateway and a sidecar have really served.

use std::fs;

use weir_tests::eventually;

use crate::{file, mesh, sidecar, turn, weir, weir_with_input};

const PROPOSED: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: proposed}
spec:
  parentRefs: [{name: gateway}, {group: \"\", kind: Service, name: web}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /web/replay}}]
      backendRefs: [{name: web-v2}]
    - matches: [{path: {type: PathPrefix, value: /web/header}, headers: [{name: x-canary, value: \"1\"}]}]
      backendRefs: [{name: web-v2}]
    - backendRefs: [{name: web}]
";

#[tokio::test]
async fn recorded_requests_are_replayed_against_a_proposal() {
    let _turn = turn().await;
    for i in 0..4 {
        mesh().http().get(&format!("/web/replay/{i}?secret=1")).ok().await;
    }
    mesh().http().get("/web/header").ok().await;
    mesh().http().get("/shop/replay").ok().await;
    sidecar("web").get("/web/replay/0").ok().await;
    let lines = eventually("the access logs have the requests", || async {
        let lines: Vec<_> = mesh().access_log().into_iter().map(|(_, line)| line).collect();
        let ours = |line: &&serde_json::Value| {
            let path = line["path"].as_str().unwrap();
            path.starts_with("/web/replay") || path == "/web/header" || path == "/shop/replay"
        };
        let ours: Vec<_> = lines.iter().filter(ours).cloned().collect();
        (ours.len() >= 7).then_some(ours)
    })
    .await;
    assert!(lines.iter().any(|line| line["authority"] == "127.0.0.1"), "{lines:?}");
    assert!(lines.iter().any(|line| line["authority"] == "web"), "{lines:?}");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    assert!(!text.contains("secret"), "the query stays out of logs");
    let log = file("replay.log", &format!("{text}not json\n"));
    let proposed = file("proposed.yaml", PROPOSED);
    let (log, proposed) = (log.to_str().unwrap(), proposed.to_str().unwrap());

    let found = weir(&["replay", log, "-f", proposed, "-o", "json"]).json();
    let number = |key: &str| found[key].as_u64().unwrap_or_else(|| panic!("{key}: {found}"));
    assert_eq!((number("requests"), number("bad")), (7, 1), "{found}");
    // Four at the gateway and one inside the mesh; for the others, rules that are
    // more specific stay. Whether /web/header had the header, nobody knows any more.
    assert_eq!((number("changed"), number("uncertain")), (5, 1), "{found}");
    assert_eq!(found["badLines"][0]["line"], 8);
    let first = &found["changes"][0];
    assert_eq!(first["requests"], 4);
    assert_eq!(first["from"]["route"], "front/0");
    assert_eq!(first["to"]["backends"], "web-v2");
    assert!(first["example"].as_str().unwrap().contains("http://127.0.0.1/web/replay/"), "{first}");

    let check = weir(&["replay", log, "-f", proposed, "--check"]);
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(check.stdout.contains("5 of 7 requests would be treated differently"), "{check:?}");
    let same = weir(&["get", "routes", "-o", "yaml"]).ok();
    let input = fs::read_to_string(log).unwrap();
    let same = file("same.yaml", &same);
    let same = weir_with_input(&["replay", "-", "-f", same.to_str().unwrap(), "--check"], &input);
    assert_eq!(same.code, Some(0), "{same:?}");
    assert!(same.stdout.contains("0 of 7 requests"), "{same:?}");
    let none = weir_with_input(&["replay", "-", "-f", proposed], "not json\n").failed();
    assert!(none.contains("no request to replay"), "{none}");
}
