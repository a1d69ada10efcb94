//! Verdicts from what routers report, and from Prometheus.

use std::time::Duration;

use serde_json::{Value, json};
use weir_mesh::analysis::Histogram;
use weir_proto::weir::mesh::v1::watch_request::Message;
use weir_proto::weir::mesh::v1::{Edge, Report};

use super::{Hook, mesh, phase, plan, status, story, weights};
use crate::plane::{Plane, eventually};
use crate::router::{Door, Manner, Router, hello};

/// The gateway's router, and what it has seen of the canary.
struct Callers {
    router: Router,
    /// Of a million, how many requests to the canary fail.
    failing: u64,
    canary: Duration,
    failed: u64,
}

impl Callers {
    async fn connect(plane: &Plane) -> Self {
        let door = Door::of(plane);
        let router = Router::connect(&door, hello("g1", "gateway", "", 0), Manner::Applies).await;
        Self { router, failing: 0, canary: Duration::from_millis(10), failed: 0 }
    }

    /// What a second brings: a thousand requests, split as the newest snapshot says.
    async fn second(&mut self) {
        let snapshot = self.router.snapshot.borrow().clone();
        let weights = crate::router::versions(&snapshot, "products");
        let edge = |version: &str, requests: u64, failures: u64, latency: Duration| {
            let mut histogram = Histogram::new();
            (0..requests).for_each(|_| histogram.record(latency));
            Edge {
                source: "gateway".into(),
                destination: "products".into(),
                version: version.into(),
                requests,
                failures,
                revision: snapshot.revision,
                latency: Some((&histogram).into()),
                ..Default::default()
            }
        };
        let sum: i32 = weights.iter().map(|(_, weight)| weight).sum();
        let mut edges = Vec::new();
        for (version, weight) in weights {
            let requests = u64::try_from(1000 * weight / sum).unwrap();
            if version == "v2" {
                // Evenly spread, so that a test always sees the same.
                let owed = requests * self.failing + self.failed;
                self.failed = owed % 1_000_000;
                edges.push(edge(&version, requests, owed / 1_000_000, self.canary));
            } else {
                edges.push(edge(&version, requests, 0, Duration::from_millis(10)));
            }
        }
        self.router.send(Message::Report(Report { edges })).await;
    }

    /// Reports until the rollout is in a phase; gives its status and how often.
    async fn until(&mut self, plane: &Plane, wanted: &str) -> (Value, u32) {
        for seconds in 1..=2000 {
            self.second().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
            let status = status(plane, "products-v2").await;
            if status["phase"] == wanted {
                return (status, seconds);
            }
        }
        panic!("never {wanted}: {}", status(plane, "products-v2").await);
    }
}

fn judged() -> Value {
    let mut plan = plan("products", json!([{"setWeight": 10}, {"setWeight": 50}]));
    plan["rollout"]["spec"]["analysis"] = json!({});
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_canary_gets_everything_and_without_reports_nothing_moves() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let mut callers = Callers::connect(&plane).await;
    plane.post("/v1/rollouts", judged()).await;
    eventually("its message", async || {
        let status = status(&plane, "products-v2").await;
        let none = status["analysis"]["verdict"] == "NOT_ENOUGH_DATA"
            && status["message"].as_str().unwrap().starts_with("not enough data");
        none.then_some(())
    })
    .await;
    assert_eq!(weights(&plane, "products").await, [90, 10]);
    let (_, seconds) = callers.until(&plane, "SUCCEEDED").await;
    println!("good: promoted after {seconds} reports");
    let story = story(&plane, "products").await;
    assert_eq!(story.len(), 4, "{story:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_canary_goes_back_in_one_revision_with_the_evidence() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let mut callers = Callers::connect(&plane).await;
    callers.failing = 200_000;
    plane.post("/v1/rollouts", judged()).await;
    eventually("it begins", async || (weights(&plane, "products").await == [90, 10]).then_some(()))
        .await;
    callers.router.sees("the weights", |s| crate::router::versions(s, "products")[1].1 == 10).await;
    let (ended, seconds) = callers.until(&plane, "ROLLED_BACK").await;
    println!("20 %-failing: rolled back after {seconds} reports");
    let message = ended["message"].as_str().unwrap();
    assert!(message.starts_with("success-rate: 80.00 % against 100.00 %"), "{message}");
    let entry = plane.get("/v1/history?limit=1").await["entries"][0].clone();
    assert_eq!(entry["reason"], message, "{entry}");
    assert!(
        entry["changes"][0].as_str().unwrap().starts_with("products: v1=90 v2=10 -> v1=100 v2=0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_canary_pauses_it_where_the_plan_says_so() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let mut callers = Callers::connect(&plane).await;
    callers.canary = Duration::from_millis(40);
    let mut plan = judged();
    plan["rollout"]["spec"]["onFailure"] = json!("Pause");
    plane.post("/v1/rollouts", plan).await;
    let (ended, _) = callers.until(&plane, "PAUSED").await;
    let message = ended["message"].as_str().unwrap();
    assert!(message.starts_with("latency-p99: "), "{message}");
    assert_eq!(weights(&plane, "products").await, [90, 10]);
    plane.post("/v1/rollouts/products-v2/abort", json!({})).await;
    assert_eq!(weights(&plane, "products").await, [100, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_that_has_no_answer_holds_it_up_and_a_bad_one_ends_it() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let hook = Hook::start().await;
    hook.says.send_replace(Some("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"));
    let mut callers = Callers::connect(&plane).await;
    let mut plan = judged();
    plan["rollout"]["spec"]["analysis"] = json!({"prometheus": [{
        "name": "errors", "address": format!("http://{}", hook.address),
        "query": "sum(rate(errors[1m]))", "max": 1, "interval": "1s",
    }]});
    plane.post("/v1/rollouts", plan).await;
    let mut text = String::new();
    for _ in 0..1000 {
        callers.second().await;
        text = status(&plane, "products-v2").await["message"].as_str().unwrap().to_owned();
        if text == "errors: not enough data: answered 503 Service Unavailable" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(text, "errors: not enough data: answered 503 Service Unavailable");
    assert_eq!(weights(&plane, "products").await, [90, 10]);
    let asked = hook.heard.borrow()[0].clone();
    assert!(
        asked.starts_with("GET /api/v1/query?query=sum%28rate%28errors%5B1m%5D%29%29 "),
        "{asked}"
    );
    hook.says.send_replace(Some(concat!(
        "HTTP/1.1 200 OK\r\ncontent-length: 79\r\n\r\n",
        r#"{"status":"success","data":{"resultType":"scalar","result":[1790000000,"2.5"]}}"#,
    )));
    let ended = phase(&plane, "products-v2", "ROLLED_BACK").await;
    assert_eq!(ended["message"], "errors: 2.5 is above 1; 1 failures, 0 may be");
}
