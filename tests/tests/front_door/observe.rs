//! Traces, access logs and metrics.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use weir_tests::{Account, eventually};

use crate::{mesh, unique};

/// The gateway's identity.
const GATEWAY: &str = "spiffe://weir.local/ns/default/sa/gateway";

/// The spans of a trace, once there are as many of each (service, kind).
async fn spans(trace: &str, wanted: &[(&str, &str, usize)]) -> Vec<Value> {
    eventually(&format!("trace {trace} has {wanted:?}"), || async {
        let reply = mesh().api().get(&format!("/v1/traces/{trace}")).send().await;
        let json = (reply.status == 200).then(|| reply.json())?;
        let spans = json["spans"].as_array()?.clone();
        let count = |service: &str, kind: &str| {
            spans.iter().filter(|s| s["service"] == service && s["kind"] == kind).count()
        };
        wanted.iter().all(|(service, kind, n)| count(service, kind) >= *n).then_some(spans)
    })
    .await
}

fn register() -> Value {
    json!({"email": format!("{}@example.com", unique("u-")), "password": "correct horse battery"})
}

#[tokio::test]
async fn a_registration_is_one_trace_with_every_hop() {
    let trace = format!("{:032x}", fastrand::u128(1..));
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let http = mesh().http();
    http.post("/v1/auth/register", &register()).header("traceparent", &parent).ok().await;
    let spans = spans(
        &trace,
        &[
            ("gateway", "server", 1),
            ("gateway", "client", 1),
            // The router's and the service's own.
            ("auth", "server", 2),
            // To users and to notifications.
            ("auth", "client", 2),
            ("users", "server", 2),
            ("notifications", "server", 2),
        ],
    )
    .await;
    // It is one tree: every span but the gateway's has its parent among them.
    let ids: HashSet<_> = spans.iter().map(|span| span["spanId"].as_str().unwrap()).collect();
    let orphans: Vec<_> = spans
        .iter()
        .filter(|span| !ids.contains(span["parentSpanId"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(orphans.len(), 1, "{orphans:#?}");
    assert_eq!(orphans[0]["service"], "gateway");
    assert_eq!(orphans[0]["parentSpanId"], "00f067aa0ba902b7");

    let tree = mesh().weir(&["traces", &trace[..12]]).ok();
    for word in ["gateway server", "auth v1 router server", "users", "notifications", "ms"] {
        assert!(tree.contains(word), "{word}: {tree}");
    }
    let json = mesh().weir(&["traces", &trace, "-o", "json"]).json();
    assert_eq!(json["spans"].as_array().unwrap().len(), spans.len());
    let recent = mesh().weir(&["traces"]).ok();
    assert!(recent.contains(&trace[..8]), "{recent}");
}

#[tokio::test]
async fn b3_headers_begin_a_trace_as_well() {
    let http = mesh().http();
    let trace = format!("{:032x}", fastrand::u128(1..));
    let b3 = format!("{trace}-00f067aa0ba902b7-1");
    http.get("/v1/products").header("b3", &b3).ok().await;
    let all = spans(&trace, &[("gateway", "server", 1), ("products", "server", 2)]).await;
    assert!(all.iter().any(|span| span["parentSpanId"] == "00f067aa0ba902b7"));

    let trace = format!("{:032x}", fastrand::u128(1..));
    let call = http.get("/v1/products").header("x-b3-traceid", &trace);
    call.header("x-b3-spanid", "00f067aa0ba902b8").header("x-b3-sampled", "1").ok().await;
    spans(&trace, &[("gateway", "server", 1), ("products", "server", 2)]).await;
}

#[tokio::test]
async fn the_access_log_tells_of_each_request_at_each_router() {
    let trace = format!("{:032x}", fastrand::u128(1..));
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let path = "/v1/products?filter=name%3Asecret-in-query";
    mesh().http().get(path).header("traceparent", &parent).ok().await;
    let lines = eventually("two lines", || async {
        let lines: Vec<_> = mesh()
            .access_log()
            .into_iter()
            .filter(|(_, line)| line["trace_id"] == trace.as_str())
            .collect();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    let (_, gateway) = lines.iter().find(|(router, _)| router == "gateway").unwrap();
    assert_eq!(
        (&gateway["method"], &gateway["path"], &gateway["status"], &gateway["version"]),
        (&json!("GET"), &json!("/v1/products"), &json!(200), &json!("v1"))
    );
    assert!(gateway["route"].as_str().unwrap().starts_with("products"), "{gateway}");
    assert!(gateway["duration_ms"].as_f64().unwrap() > 0.0, "{gateway}");
    let (_, inbound) = lines.iter().find(|(router, _)| router.starts_with("products")).unwrap();
    assert_eq!((&inbound["peer"], &inbound["side"]), (&json!(GATEWAY), &json!("inbound")));
    assert!(!format!("{lines:?}").contains("secret-in-query"));
}

/// Prometheus text format, version 0.0.4: samples by name, each with labels and
/// value. Panics on anything that is not it.
fn samples(text: &str) -> HashMap<String, Vec<(String, f64)>> {
    let mut types = HashMap::new();
    let mut samples: HashMap<String, Vec<(String, f64)>> = HashMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind));
            assert!(types.insert(name.to_owned(), kind).is_none(), "{name} twice");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.replace("+Inf", "inf").parse().unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b)), "{line}");
        assert!(labels.ends_with('}'), "{line}");
        samples.entry(name.to_owned()).or_default().push((labels.to_owned(), value));
    }
    assert!(!types.is_empty(), "{text}");
    samples
}

#[tokio::test]
async fn metrics_have_opentelemetrys_names_and_no_paths() {
    let http = mesh().http();
    let id = "00000000-0000-4000-8000-00000000abcd";
    http.get(&format!("/v1/products/{id}")).send().await;
    for (router, peer) in [("gateway", ""), ("products-v1-1-router", GATEWAY)] {
        let counted = eventually(&format!("{router} counts"), || async {
            http.get("/v1/products?pageSize=1").ok().await;
            let reply = mesh().admin(router).get("/metrics").send().await;
            assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
            assert!(!reply.text().contains(id) && !reply.text().contains("/v1/"));
            let samples = samples(&reply.text());
            let counts = samples.get("http_server_request_duration_seconds_count")?.clone();
            let wanted = [format!("weir_peer=\"{peer}\""), "weir_service=\"products\"".into()];
            counts.into_iter().find(|(labels, _)| wanted.iter().all(|w| labels.contains(w)))
        })
        .await;
        for label in
            ["weir_service=\"products\"", "weir_version=\"v1\"", "http_response_status_code="]
        {
            assert!(counted.0.contains(label), "{label} is not in {}", counted.0);
        }
        assert!(counted.1 >= 1.0);
    }
    let reply = mesh().admin("products-v1-1-router").get("/metrics").send().await;
    assert!(samples(&reply.text()).contains_key("rpc_server_call_duration_seconds_bucket"));
}

#[tokio::test]
async fn edges_say_who_calls_whom() {
    Account::register(&mesh().http()).await;
    eventually("the edges of a registration", || async {
        let edges = mesh().weir(&["get", "edges", "-o", "json"]).json();
        let all = edges["edges"].as_array()?;
        let has = |source: &str, destination: &str| {
            all.iter().any(|e| e["source"] == source && e["destination"] == destination)
        };
        (has("gateway", "auth") && has("auth", "users") && has("auth", "notifications"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn admin_listeners_show_what_is_in_use() {
    let admin = mesh().admin("products-v2-1-router");
    assert_eq!(admin.get("/live").send().await.status, 200);
    assert_eq!(admin.get("/ready").send().await.status, 200);
    let config = admin.get("/config").ok().await;
    assert_eq!((&config["service"], &config["version"]), (&json!("products"), &json!("v2")));
    let id = "spiffe://weir.local/ns/default/sa/products";
    assert_eq!(config["certificate"]["id"], id);
    assert!(!config.to_string().contains("PRIVATE"));
}
