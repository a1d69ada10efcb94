//! Rollouts by the front door: weights, pauses, gates, analysis, and everything that
//! gets in between.

mod analysis;
mod restart;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::plane::{Plane, eventually};
use crate::router::{Door, Manner, Router, hello};

/// Services whose versions run somewhere, without routers: nothing to wait for.
pub fn mesh() -> Value {
    let versions = |port: u16| {
        json!([
            {"version": "v1", "weight": 100, "addresses": [format!("127.0.0.1:{port}")]},
            {"version": "v2", "weight": 0, "addresses": [format!("127.0.0.1:{}", port + 1)]},
        ])
    };
    json!({"services": [
        {"name": "products", "protocol": "PROTOCOL_HTTP1", "versions": versions(9001)},
        {"name": "users", "protocol": "PROTOCOL_HTTP1", "versions": versions(9003)},
    ]})
}

pub fn plan(service: &str, steps: Value) -> Value {
    json!({"rollout": {
        "name": format!("{service}-v2"),
        "spec": {"service": service, "canary": "v2", "steps": steps},
    }, "reason": "a new version"})
}

pub async fn status(plane: &Plane, name: &str) -> Value {
    plane.get(&format!("/v1/rollouts/{name}")).await["status"].clone()
}

/// Waits until the rollout is in a phase; gives its status.
pub async fn phase(plane: &Plane, name: &str, wanted: &str) -> Value {
    let mut last = Value::Null;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while tokio::time::Instant::now() < deadline {
        last = status(plane, name).await;
        if last["phase"] == wanted {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never {wanted}: {last}");
}

pub async fn weights(plane: &Plane, service: &str) -> Vec<i64> {
    let service = plane.get(&format!("/v1/services/{service}")).await;
    let versions = service["versions"].as_array().unwrap();
    versions.iter().map(|version| version["weight"].as_i64().unwrap()).collect()
}

/// What the history says of a service, oldest first.
pub async fn story(plane: &Plane, service: &str) -> Vec<String> {
    let history = plane.get(&format!("/v1/services/{service}/history")).await;
    let entries = history["entries"].as_array().unwrap();
    let line = |entry: &Value| {
        let changes = entry["changes"].as_array().unwrap().iter();
        changes.map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("; ")
    };
    entries.iter().rev().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_and_state_are_one_revision_each_and_the_history_says_who() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let steps = json!([{"setWeight": 10}, {"pause": {"duration": "50ms"}}, {"setWeight": 50}]);
    let started = plane.post("/v1/rollouts", plan("products", steps)).await;
    assert_eq!(started["status"]["phase"], "PROGRESSING", "{started}");
    let done = phase(&plane, "products-v2", "SUCCEEDED").await;
    assert_eq!((&done["stable"], &done["weight"]), (&json!("v1"), &json!(100.0)));
    assert_eq!((&done["step"], &done["steps"]), (&json!(4), &json!(4)));
    let story = story(&plane, "products").await;
    assert!(story[0].starts_with("products: new"), "{story:?}");
    assert_eq!(
        story[1..],
        [
            "products: v1=100 v2=0 -> v1=90 v2=10; rollout products-v2: Progressing, not begun \
             -> Progressing, step 1 of 4: setWeight 10",
            "products: v1=90 v2=10 -> v1=50 v2=50; rollout products-v2: Progressing, step 2 of 4: \
             pause 50ms -> Progressing, step 3 of 4: setWeight 50",
            "products: v1=50 v2=50 -> v1=0 v2=100; rollout products-v2: Progressing, step 3 of 4: \
             setWeight 50 -> Progressing, step 4 of 4: setWeight 100",
        ]
    );
    let entries = plane.get("/v1/history").await["entries"].clone();
    let actors: Vec<_> = entries.as_array().unwrap().iter().map(|e| e["actor"].clone()).collect();
    assert_eq!(actors.iter().filter(|actor| **actor == "rollout/products-v2").count(), 5);
    assert_eq!(entries[0]["reason"], "done");
    let (code, _) = plane.http("DELETE", "/v1/rollouts/products-v2", Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(weights(&plane, "products").await, [0, 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_is_refused_with_what_to_do() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let (code, refused) = plane
        .http(
            "POST",
            "/v1/rollouts",
            json!({"rollout": {"name": "x", "spec": {
                "service": "products", "canary": "v2",
                "steps": [{"setWeight": 200}, {"puase": {}}],
            }}}),
        )
        .await;
    assert_eq!(code, 400, "{refused}");
    let fields = refused["details"][0]["fieldViolations"].as_array().unwrap().clone();
    let fields: Vec<_> = fields.iter().map(|f| f["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["rollout.spec.steps[0].setWeight", "rollout.spec.steps[1].puase"]);
    let none = plan("nowhere", json!([{"setWeight": 1}]));
    assert_eq!(plane.http("POST", "/v1/rollouts", none).await.0, 404);
    let mut same = plan("products", json!([{"setWeight": 1}]));
    same["rollout"]["spec"]["canary"] = json!("v1");
    let (code, refused) = plane.http("POST", "/v1/rollouts", same).await;
    assert_eq!(
        (code, &refused["message"]),
        (400, &json!("v1 serves already; name another version as canary"),)
    );
    plane.post("/v1/rollouts", plan("products", json!([{"pause": {}}]))).await;
    let mut second = plan("products", json!([{"pause": {}}]));
    second["rollout"]["name"] = json!("another");
    assert_eq!(plane.http("POST", "/v1/rollouts", second).await.0, 409);
    let (code, refused) = plane.http("DELETE", "/v1/rollouts/products-v2", Value::Null).await;
    assert_eq!(code, 400, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_pause_resume_promote_and_abort() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let steps = json!([{"setWeight": 10}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]);
    let act = async |verb: &str, body: Value| {
        plane.post(&format!("/v1/rollouts/products-v2/{verb}"), body).await["status"].clone()
    };
    plane.post("/v1/rollouts", plan("products", steps.clone())).await;
    let paused = phase(&plane, "products-v2", "PAUSED").await;
    assert_eq!(paused["message"], "waits until somebody resumes or aborts it");
    act("resume", json!({})).await;
    eventually("step 4", async || (status(&plane, "products-v2").await["step"] == 3).then_some(()))
        .await;
    assert_eq!(weights(&plane, "products").await, [50, 50]);
    let aborted = act("abort", json!({"reason": "no"})).await;
    assert_eq!((&aborted["phase"], &aborted["weight"]), (&json!("ABORTED"), &json!(0.0)));
    assert_eq!(weights(&plane, "products").await, [100, 0]);

    // The same again, by promotion.
    plane.post("/v1/rollouts", plan("products", steps)).await;
    phase(&plane, "products-v2", "PAUSED").await;
    act("promote", json!({"full": true})).await;
    phase(&plane, "products-v2", "SUCCEEDED").await;
    let story = story(&plane, "products").await;
    assert!(story.last().unwrap().starts_with("products: v1=90 v2=10 -> v1=0 v2=100"), "{story:?}");
    let (code, _) = plane.http("POST", "/v1/rollouts/products-v2/pause", json!({})).await;
    assert_eq!(code, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_promote_what_they_have_seen_one_wins() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let steps = json!([{"setWeight": 10}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]);
    plane.post("/v1/rollouts", plan("products", steps)).await;
    phase(&plane, "products-v2", "PAUSED").await;
    let seen = plane.get("/v1/rollouts/products-v2").await["revision"].clone();
    assert!(seen.as_u64().is_some_and(|revision| revision > 0), "{seen}");
    let path = "/v1/rollouts/products-v2/promote";
    let promote = || plane.http("POST", path, json!({"expectedRevision": seen}));
    let (one, other) = tokio::join!(promote(), promote());
    let mut codes = [one.0, other.0];
    codes.sort_unstable();
    assert_eq!(codes, [200, 409], "{one:?} {other:?}");
    eventually("step 4", async || (status(&plane, "products-v2").await["step"] == 3).then_some(()))
        .await;
    phase(&plane, "products-v2", "PAUSED").await;
    assert_eq!(weights(&plane, "products").await, [50, 50], "it was passed once");
    for verb in ["pause", "resume", "abort"] {
        let path = format!("/v1/rollouts/products-v2/{verb}");
        let (code, refused) = plane.http("POST", &path, json!({"expectedRevision": seen})).await;
        assert_eq!((code, &refused["status"]), (409, &json!("ABORTED")), "{verb}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_weights_are_its_own() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    plane.post("/v1/rollouts", plan("products", json!([{"setWeight": 10}, {"pause": {}}]))).await;
    phase(&plane, "products-v2", "PAUSED").await;
    let path = "/v1/services/products/shift";
    let (code, refused) = plane.http("POST", path, json!({"weights": {"v1": 1}})).await;
    assert_eq!(code, 400, "{refused}");
    assert!(refused["message"].as_str().unwrap().starts_with("rollout products-v2 manages"));
    let (code, _) = plane.http("POST", "/v1/services/products/rollback", json!({})).await;
    assert_eq!(code, 400);
    let services = plane.get("/v1/services").await;
    assert_eq!(services["services"][0]["managedBy"], "rollout/products-v2");

    // What is applied keeps its hands off.
    let mut again = mesh();
    again["prune"] = json!(true);
    let applied = plane.post("/v1/apply", again).await;
    assert_eq!(applied["warnings"][0]["name"], "ManagedByRollout", "{applied}");
    assert_eq!(weights(&plane, "products").await, [90, 10]);
    assert_eq!(status(&plane, "products-v2").await["phase"], "PAUSED");

    // By force: it stops, says why, and sets its weights again when it is resumed.
    let forced = json!({"weights": {"v1": 70, "v2": 30}, "force": true, "reason": "a test"});
    plane.post(path, forced).await;
    let stopped = status(&plane, "products-v2").await;
    let message = stopped["message"].as_str().unwrap();
    assert!(message.ends_with("changed the weights by force: a test"), "{message}");
    assert_eq!(weights(&plane, "products").await, [70, 30]);
    plane.post("/v1/rollouts/products-v2/resume", json!({})).await;
    phase(&plane, "products-v2", "PAUSED").await;
    assert_eq!(weights(&plane, "products").await, [90, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_its_document_starts_it_once() {
    let plane = Plane::start().await;
    let mut all = mesh();
    all["rollouts"] =
        json!([plan("products", json!([{"setWeight": 10}, {"pause": {}}]))["rollout"]]);
    let applied = plane.post("/v1/apply", all.clone()).await;
    assert_eq!(applied["revision"], 1, "{applied}");
    phase(&plane, "products-v2", "PAUSED").await;
    let again = plane.post("/v1/apply", all.clone()).await;
    assert_eq!(again["unchanged"], true, "{again}");
    all["rollouts"][0]["spec"]["steps"][0]["setWeight"] = json!(20);
    let other = plane.post("/v1/apply", all.clone()).await;
    let names: Vec<_> = other["warnings"].as_array().unwrap().iter().map(|w| &w["name"]).collect();
    assert_eq!(names, ["ManagedByRollout", "RolloutRuns"]);
    plane.post("/v1/rollouts/products-v2/abort", json!({})).await;
    plane.post("/v1/apply", all).await;
    phase(&plane, "products-v2", "PAUSED").await;
    assert_eq!(weights(&plane, "products").await, [80, 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_canary_that_is_well_it_waits_and_the_deadline_ends_it() {
    let plane = Plane::start().await;
    plane.seed().await;
    let mut waits = plan("products", json!([{"setWeight": 10}, {"pause": {"duration": "10m"}}]));
    waits["rollout"]["spec"]["deadline"] = json!("3s");
    plane.post("/v1/rollouts", waits).await;
    eventually("its message", async || {
        let message = status(&plane, "products-v2").await["message"].clone();
        (message == "products v2 has no healthy instance").then_some(())
    })
    .await;
    let door = Door::of(&plane);
    let _router =
        Router::connect(&door, hello("p2", "products", "v2", 1002), Manner::Applies).await;
    eventually("it begins", async || (weights(&plane, "products").await == [90, 10]).then_some(()))
        .await;
    let ended = phase(&plane, "products-v2", "ROLLED_BACK").await;
    let message = ended["message"].as_str().unwrap();
    assert_eq!(message, "the deadline of 3s has passed; it waited: pauses for 10m");
    assert_eq!(weights(&plane, "products").await, [100, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_refuses_holds_it_up() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let door = Door::of(&plane);
    let mut bad =
        Router::connect(&door, hello("g1", "gateway", "", 0), Manner::RefusesChanges).await;
    bad.sees("its first", |s| s.sequence > 0).await;
    plane.post("/v1/rollouts", plan("products", json!([{"setWeight": 10}]))).await;
    eventually("the reason", async || {
        let message = status(&plane, "products-v2").await["message"].clone();
        message.as_str().unwrap().contains("0 of 1 routers").then_some(())?;
        message.as_str().unwrap().ends_with("g1: refused: routes[0]: no").then_some(())
    })
    .await;
    assert_eq!(weights(&plane, "products").await, [90, 10]);
    assert_eq!(
        plane.post("/v1/rollouts/products-v2/abort", json!({})).await["status"]["weight"],
        0.0
    );
}

/// A webhook: it says nothing until it is told what.
struct Hook {
    address: SocketAddr,
    says: watch::Sender<Option<&'static str>>,
    heard: watch::Receiver<Vec<String>>,
}

impl Hook {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (says, saying) = watch::channel(None);
        let (hears, heard) = watch::channel(Vec::new());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut saying, hears) = (saying.clone(), hears.clone());
                tokio::spawn(async move {
                    let mut bytes = vec![0; 65536];
                    let mut have = 0;
                    while !whole(&bytes[..have]) {
                        match stream.read(&mut bytes[have..]).await {
                            Ok(0) | Err(_) => return,
                            Ok(n) => have += n,
                        }
                    }
                    let text = String::from_utf8_lossy(&bytes[..have]).into_owned();
                    hears.send_modify(|all| all.push(text));
                    if saying.wait_for(|said| said.is_some()).await.is_err() {
                        return;
                    }
                    let body: &str = saying.borrow().unwrap();
                    let _ = stream.write_all(body.as_bytes()).await;
                });
            }
        });
        Self { address, says, heard }
    }
}

/// Whether a request is there with its body.
fn whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    body.len() >= length.unwrap_or(0)
}

const YES: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_hangs_holds_up_its_own_rollout_and_no_other() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let mut hook = Hook::start().await;
    let webhook = json!({
        "url": format!("http://{}/gate?key=s3cret", hook.address),
        "timeout": "30s",
        "headers": {"authorization": "Bearer s3cret"},
    });
    let gated = json!([{"setWeight": 10}, {"gate": {"webhook": webhook}}]);
    plane.post("/v1/rollouts", plan("products", gated)).await;
    let asked = hook.heard.wait_for(|all| !all.is_empty()).await.unwrap()[0].clone();
    assert!(asked.starts_with("POST /gate?key=s3cret HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer s3cret\r\n"), "{asked}");
    assert!(asked.ends_with(
        r#""service":"products","stable":"v1","step":1,"stepText":"gate http://ADDRESS/gate","steps":3,"weight":10}"#
            .replace("ADDRESS", &hook.address.to_string())
            .as_str()
    ), "{asked}");
    plane.post("/v1/rollouts", plan("users", json!([{"setWeight": 10}]))).await;
    phase(&plane, "users-v2", "SUCCEEDED").await;
    let waiting = status(&plane, "products-v2").await;
    assert_eq!(waiting["message"], format!("asks http://{}/gate", hook.address));
    assert_eq!(weights(&plane, "products").await, [90, 10]);
    hook.says.send_replace(Some(YES));
    phase(&plane, "products-v2", "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_says_no_is_asked_again() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let mut hook = Hook::start().await;
    hook.says.send_replace(Some("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"));
    let webhook = json!({"url": format!("http://{}/", hook.address)});
    let gated = json!([{"setWeight": 10}, {"gate": {"webhook": webhook}}]);
    plane.post("/v1/rollouts", plan("products", gated)).await;
    eventually("what it says", async || {
        let message = status(&plane, "products-v2").await["message"].clone();
        message.as_str().unwrap().ends_with("/ answered 403 Forbidden").then_some(())
    })
    .await;
    hook.says.send_replace(Some(YES));
    tokio::time::timeout(Duration::from_secs(20), hook.heard.wait_for(|all| all.len() >= 2))
        .await
        .unwrap()
        .unwrap();
    phase(&plane, "products-v2", "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_and_a_rollout_write_at_once() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let steps: Vec<Value> = (1..=30).map(|weight| json!({"setWeight": weight})).collect();
    plane.post("/v1/rollouts", plan("products", json!(steps))).await;
    // One works on another service; one fights for the same, without force and with.
    let users = async {
        for weight in 1..=40 {
            let body = json!({"weights": {"v1": 100, "v2": weight}});
            plane.post("/v1/services/users/shift", body).await;
        }
    };
    let fights = async {
        let mut forced = 0;
        while status(&plane, "products-v2").await["phase"] != "SUCCEEDED" {
            let body = json!({"weights": {"v1": 1, "v2": 1}});
            let (code, _) = plane.http("POST", "/v1/services/products/shift", body.clone()).await;
            assert!(code == 400 || code == 200, "{code}");
            if forced < 3 {
                let mut body = body;
                body["force"] = json!(true);
                let (code, _) = plane.http("POST", "/v1/services/products/shift", body).await;
                assert_eq!(code, 200);
                forced += 1;
            }
            let _ = plane.http("POST", "/v1/rollouts/products-v2/resume", json!({})).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(users, fights) })
        .await
        .unwrap();
    assert_eq!(weights(&plane, "users").await, [100, 40]);
    let verified = plane.get("/v1/history/verify").await;
    assert_eq!(verified["ok"], true, "{verified}");
    // Whatever the others did: each step was there, in order.
    let history = plane.get("/v1/history?limit=1000").await["entries"].clone();
    let entered: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .filter(|entry| entry["actor"] == "rollout/products-v2")
        .filter_map(|entry| {
            entry["reason"].as_str().unwrap().strip_prefix("step ").map(str::to_owned)
        })
        .collect();
    let numbers: Vec<u32> =
        entered.iter().map(|text| text.split_once(' ').unwrap().0.parse().unwrap()).collect();
    assert_eq!(numbers, (2..=31).collect::<Vec<_>>());
}
