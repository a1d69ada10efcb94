//! Who may do what: tokens, certificates and OIDC through the front door, and what the
//! history says of those who may not.

mod certificates;
mod oidc;

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::{Value, json};
use weir_proto::descriptors;

use crate::plane::{Plane, eventually, route};
use crate::router::{Door, Manner, Router, hello};

fn sha256(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token for each role, by the role's name; `team` may shift products alone.
fn tokens() -> String {
    let mut file = "tokens:\n".to_owned();
    for (name, more) in
        [("viewer", ""), ("shifter", ""), ("operator", ""), ("team", ", services: [products]")]
    {
        let role = if name == "team" { "shifter" } else { name };
        let hash = sha256(&token(name));
        file.push_str(&format!("- {{name: {name}-1, sha256: {hash}, role: {role}{more}}}\n"));
    }
    file
}

fn token(of: &str) -> String {
    format!("token-of-the-{of}")
}

async fn plane() -> Plane {
    let plane = Plane::with_access(&tokens(), |_| {}).await;
    plane.seed().await;
    plane
}

/// What gRPC answers to an empty request.
async fn grpc_status(plane: &Plane, token: &str, path: &str) -> u16 {
    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = http::Request::post(format!("http://{}{path}", plane.running.api))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .unwrap();
    let answer = client.request(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let status = head.headers.get("grpc-status").cloned();
    let body = tokio::time::timeout(Duration::from_secs(10), body.collect()).await.unwrap();
    let trailers = body.unwrap().trailers().cloned().unwrap_or_default();
    let status = status.or_else(|| trailers.get("grpc-status").cloned()).unwrap();
    status.to_str().unwrap().parse().unwrap()
}

async fn history(plane: &Plane) -> Vec<Value> {
    plane.get("/v1/history?limit=1000").await["entries"].as_array().unwrap().clone()
}

fn refusals(entries: &[Value]) -> Vec<&Value> {
    entries.iter().filter(|entry| entry["action"] == "refused").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_method_is_for_its_role_and_those_above() {
    let plane = plane().await;
    let set = FileDescriptorSet::decode(descriptors::CONTROL).unwrap();
    let services = set.file.iter().filter(|file| file.package() == "weir.control.v1");
    let methods: Vec<_> = services
        .flat_map(|file| &file.service)
        .filter(|service| service.name() == "ControlService")
        .flat_map(|service| &service.method)
        .map(|method| method.name().to_owned())
        .collect();
    assert!(methods.len() >= 37, "{methods:?}");
    let least = |method: &str| match method {
        "RotateCertificates" => 3,
        // Without dry_run.
        "Apply" => 2,
        _ if method.starts_with("Put") || method == "DeleteRollout" => {
            if method == "DeleteRollout" { 1 } else { 2 }
        }
        _ if method.starts_with("Delete") => 2,
        "Shift" | "Rollback" => 1,
        _ if method.ends_with("Rollout") && !method.starts_with("Get") => {
            u8::from(method != "WatchRollout")
        }
        _ => 0,
    };
    let own = plane.token.clone();
    let callers = [token("viewer"), token("shifter"), token("operator"), own];
    for method in &methods {
        for (role, token) in callers.iter().enumerate() {
            let path = format!("/weir.control.v1.ControlService/{method}");
            let status = grpc_status(&plane, token, &path).await;
            let may = role as u8 >= least(method);
            assert_eq!(status != 7, may, "{method} by role {role}: {status}");
        }
    }
    for path in ["/weir.control.v1.ControlService/Invented", "/weir.mesh.v1.MeshService/Watch"] {
        assert_eq!(grpc_status(&plane, &token("operator"), path).await, 7, "{path}");
        assert_eq!(grpc_status(&plane, &plane.token, path).await, 12, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_refused_as_grpc_is_and_says_why() {
    let plane = plane().await;
    let shift = json!({"weights": {"v1": 1, "v2": 1}, "allowEmpty": true});
    let cases = [
        (
            "viewer",
            "POST",
            "/v1/services/products/shift",
            shift.clone(),
            "viewer-1 may not call Shift of service/products: it needs the role shifter, and \
          viewer-1 is a viewer",
        ),
        (
            "shifter",
            "PUT",
            "/v1/routes/web",
            route("web", "users"),
            "PutRoute of route/web: it needs the role operator, and shifter-1 is a shifter",
        ),
        (
            "viewer",
            "POST",
            "/v1/apply",
            json!({"reason": "x"}),
            "Apply: it needs the role operator",
        ),
        (
            "operator",
            "POST",
            "/v1/certificates/rotate",
            json!({}),
            "RotateCertificates: it needs the role admin, and operator-1 is an operator",
        ),
        (
            "team",
            "POST",
            "/v1/services/users/shift",
            json!({"weights": {"v1": 1}}),
            "Shift of service/users: team-1 may shift products, and not users",
        ),
        ("team", "POST", "/v1/services/users/rollback", json!({}), "Rollback of service/users: "),
        (
            "viewer",
            "DELETE",
            "/v1/policies/RateLimitPolicy/p",
            Value::Null,
            "DeletePolicy of policy/RateLimitPolicy/p: ",
        ),
    ];
    let count = cases.len();
    for (who, method, path, body, expected) in cases {
        let (status, answer) = plane.http_as(&token(who), method, path, body).await;
        assert_eq!((status, &answer["status"]), (403, &json!("PERMISSION_DENIED")), "{answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
        let entries = history(&plane).await;
        let newest = &entries[0];
        assert_eq!((&newest["action"], &newest["objects"]), (&json!("refused"), &json!([])));
        assert_eq!(newest["actor"], format!("{who}-1"), "{newest}");
        assert!(message.contains(newest["reason"].as_str().unwrap()), "{newest}: {message}");
    }
    assert_eq!(plane.get("/v1/mesh").await["revision"], 1 + count);
    // What they may do, they do.
    let (status, answer) =
        plane.http_as(&token("team"), "POST", "/v1/services/products/shift", shift).await;
    assert_eq!((status, &answer["revision"]), (200, &json!(2 + count)), "{answer}");
    let dry = json!({"routes": [route("web", "users")], "dryRun": true});
    let (status, answer) = plane.http_as(&token("viewer"), "POST", "/v1/apply", dry).await;
    assert_eq!(status, 200, "{answer}");
    let (_, who) = plane.http_as(&token("team"), "GET", "/v1/whoami", Value::Null).await;
    assert_eq!(
        who,
        json!({"name": "team-1", "method": "token", "role": "shifter", "services": ["products"]})
    );
    let (_, text) = plane.raw("GET", "/metrics", &[], String::new()).await;
    assert!(text.contains("a token is needed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_revision_of_which_routers_hear_nothing() {
    let plane = plane().await;
    let door = Door::of(&plane);
    let mut one =
        Router::connect(&door, hello("p1", "products", "v1", 1001), Manner::Applies).await;
    one.sees("its instance", |snapshot| snapshot.instances.len() == 1).await;
    let before = plane.get("/v1/mesh").await;
    let shift = json!({"weights": {"v1": 7}, "wait": true, "waitSeconds": 5});
    let path = "/v1/services/products/shift";
    assert_eq!(plane.http_as(&token("viewer"), "POST", path, shift.clone()).await.0, 403);
    let after = plane.get("/v1/mesh").await;
    assert_eq!(after["revision"], 2);
    assert_eq!(after["sequence"], before["sequence"], "no snapshot was made");

    // Nor does a change that changes nothing wait for what nobody was sent.
    let same = json!({"weights": {"v1": 100}, "wait": true, "waitSeconds": 5});
    let answer = plane.post(path, same).await;
    assert_eq!((&answer["unchanged"], &answer["revision"]), (&json!(true), &json!(1)), "{answer}");
    assert_eq!(answer["converged"]["applied"], 1, "{answer}");
    let answer = plane.post(path, shift).await;
    assert_eq!((&answer["revision"], &answer["converged"]["applied"]), (&json!(3), &json!(1)));
    let snapshot = one.sees("the shift", |snapshot| snapshot.revision == 3).await;
    assert!(snapshot.sequence > 0);

    assert_eq!(plane.http_as(&token("viewer"), "POST", path, json!({})).await.0, 403);
    let plane = plane.restart().await;
    let mesh = plane.get("/v1/mesh").await;
    assert_eq!(mesh["revision"], 4, "it is kept");
    let entries = history(&plane).await;
    assert_eq!(entries[0]["action"], "refused");
    assert_eq!(entries[0]["previousHash"], entries[1]["hash"], "it is in the chain");
    assert_eq!(plane.get("/v1/snapshot").await["revision"], 3, "what routers use is what changed");
    let back = plane.post("/v1/services/products/rollback", json!({})).await;
    assert_eq!(back["revision"], 5, "{back}");
    let service = plane.get("/v1/services/products").await;
    assert_eq!(service["versions"][0]["weight"], 100, "refusals are no step of a rollback");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_fills_no_disk() {
    let plane = plane().await;
    for _ in 0..60 {
        let path = "/v1/services/products/shift";
        assert_eq!(plane.http_as(&token("viewer"), "POST", path, json!({})).await.0, 403);
        assert_eq!(plane.http_as("wrong", "GET", "/v1/mesh", Value::Null).await.0, 401);
        assert_eq!(plane.raw("GET", "/v1/mesh", &[], String::new()).await.0, 401);
    }
    let entries = history(&plane).await;
    let written = refusals(&entries).len();
    // Ten one by one, and the first of each kind that is gathered; more only when the
    // machine is slow.
    assert!((11..=40).contains(&written), "{written}");
    // Nothing is lost: the rest is told at the latest when the control plane stops.
    let plane = plane.restart().await;
    let entries = history(&plane).await;
    let refused = refusals(&entries);
    let total = |actor: &str| -> u64 {
        let own = refused.iter().filter(|entry| entry["actor"] == actor);
        own.map(|entry| {
            let reason = entry["reason"].as_str().unwrap();
            reason.split(' ').next().unwrap().parse().unwrap_or(1)
        })
        .sum()
    };
    assert_eq!(total("unknown"), 120, "{refused:?}");
    assert_eq!(total("viewer-1") + total("several"), 60, "{refused:?}");
    let gathered = refused.iter().find(|entry| entry["actor"] == "unknown").unwrap();
    let reason = gathered["reason"].as_str().unwrap();
    assert!(reason.contains("from 127.0.0.1 (") && reason.contains("a wrong token ("), "{reason}");
    let all = serde_json::to_string(&entries).unwrap();
    assert!(!all.contains("token-of-the"), "a token is in the history");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_followed_and_a_broken_one_changes_nothing() {
    let plane = plane().await;
    let file = plane.dir.path().join("access.yaml");
    let status = async |of: &str| plane.http_as(&token(of), "GET", "/v1/mesh", Value::Null).await.0;
    assert_eq!((status("viewer").await, status("late").await), (200, 401));
    let late = |more: &str| {
        format!("tokens: [{{name: late, sha256: {}, role: viewer{more}}}]", sha256(&token("late")))
    };
    std::fs::write(&file, late("")).unwrap();
    eventually("the new token", async || (status("late").await == 200).then_some(())).await;
    assert_eq!(status("viewer").await, 401, "taken out");

    // A broken file is skipped; the good one after it shows that it was looked at.
    std::fs::write(&file, "tokens: [{name: late, role: king}]").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(status("late").await, 200, "what was known stays");
    std::fs::write(&file, late(", expires: 2001-01-01T00:00:00Z")).unwrap();
    eventually("the expiry", async || (status("late").await == 401).then_some(())).await;
    let (_, answer) = plane.http_as(&token("late"), "GET", "/v1/mesh", Value::Null).await;
    assert!(answer["message"].as_str().unwrap().contains("the token of late has expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_admin_does_beside_changes_is_in_the_history() {
    let plane = plane().await;
    plane.post("/v1/certificates/rotate", json!({"reason": "the key was seen"})).await;
    let entries = history(&plane).await;
    let newest = &entries[0];
    assert_eq!((&newest["action"], &newest["actor"]), (&json!("rotate"), &json!("admin")));
    assert_eq!(newest["reason"], "the key was seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_are_driven_by_who_may_shift_their_service() {
    let plane = plane().await;
    let team = token("team");
    let start = |service: &str, steps: Value| {
        json!({"rollout": {"name": format!("{service}-v2"), "spec": {
            "service": service, "canary": "v2", "steps": steps,
        }}})
    };
    let pause = json!([{"pause": {}}]);
    let (code, why) =
        plane.http_as(&team, "POST", "/v1/rollouts", start("users", pause.clone())).await;
    assert_eq!(code, 403, "{why}");
    let asks = json!([{"gate": {"webhook": {"url": "http://127.0.0.1:1/"}}}]);
    let (code, why) = plane.http_as(&team, "POST", "/v1/rollouts", start("products", asks)).await;
    assert_eq!(code, 403, "{why}");
    assert!(why["message"].as_str().unwrap().contains("needs the role operator"), "{why}");
    let (code, why) =
        plane.http_as(&team, "POST", "/v1/rollouts", start("products", pause.clone())).await;
    assert_eq!(code, 200, "{why}");
    plane.post("/v1/rollouts", start("users", pause)).await;
    let abort = async |name: &str| {
        plane.http_as(&team, "POST", &format!("/v1/rollouts/{name}/abort"), json!({})).await.0
    };
    assert_eq!((abort("users-v2").await, abort("products-v2").await), (403, 200));
}
