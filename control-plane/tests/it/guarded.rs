//! Retries by idempotency keys, and changes of what is not as it was.

use serde_json::{Value, json};

use crate::plane::{Plane, route};

fn shift(v2: i64, key: &str) -> Value {
    json!({"weights": {"v1": 100, "v2": v2}, "allowEmpty": true, "idempotencyKey": key})
}

const SHIFT: &str = "/v1/services/products/shift";

async fn newest(plane: &Plane) -> Value {
    plane.get("/v1/history?limit=1").await["entries"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_changes_nothing_and_is_answered_as_before() {
    let plane = Plane::start().await;
    plane.seed().await;
    let first = plane.post(SHIFT, shift(10, "deploy-7")).await;
    assert_eq!((&first["revision"], &first["replayed"]), (&json!(2), &json!(false)));
    // Somebody else goes on; the retry must not undo that.
    plane.post(SHIFT, shift(20, "deploy-8")).await;
    let again = plane.post(SHIFT, shift(10, "deploy-7")).await;
    assert_eq!((&again["revision"], &again["replayed"]), (&json!(2), &json!(true)));
    let entry = newest(&plane).await;
    assert_eq!((&entry["revision"], &entry["idempotencyKey"]), (&json!(3), &json!("deploy-8")));

    let (status, refused) = plane.http("POST", SHIFT, shift(11, "deploy-7")).await;
    assert_eq!(status, 400, "{refused}");
    assert_eq!(refused["details"][0]["fieldViolations"][0]["field"], "idempotencyKey");

    // As new, in another process.
    let plane = plane.restart().await;
    let again = plane.post(SHIFT, shift(10, "deploy-7")).await;
    assert_eq!((&again["revision"], &again["replayed"]), (&json!(2), &json!(true)));
    let (status, _) = plane.http("POST", SHIFT, shift(11, "deploy-7")).await;
    assert_eq!(status, 400);
    assert_eq!(newest(&plane).await["revision"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_answered_though_its_object_is_gone() {
    let plane = Plane::start().await;
    plane.seed().await;
    let delete = "/v1/routes/web?idempotencyKey=k1";
    let (status, first) = plane.http("DELETE", delete, Value::Null).await;
    assert_eq!(status, 200, "{first}");
    let (status, again) = plane.http("DELETE", delete, Value::Null).await;
    assert_eq!((status, &again["revision"]), (200, &first["revision"]), "{again}");
    assert_eq!(again["replayed"], true);
    let (status, _) = plane.http("DELETE", "/v1/routes/web", Value::Null).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_is_the_field() {
    let plane = Plane::start().await;
    plane.seed().await;
    let auth = format!("Bearer {}", plane.token);
    let mut body = shift(10, "");
    body.as_object_mut().unwrap().remove("idempotencyKey");
    let post = async |key: &str| {
        let headers = [("authorization", auth.as_str()), ("idempotency-key", key)];
        let (status, text) = plane.raw("POST", SHIFT, &headers, body.to_string()).await;
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    // As the draft writes it, and without its quotes.
    let (status, first) = post("\"8e03978e\"").await;
    assert_eq!((status, &first["replayed"]), (200, &json!(false)), "{first}");
    let (status, again) = post("8e03978e").await;
    assert_eq!((status, &again["replayed"]), (200, &json!(true)), "{again}");
    let again = plane.post(SHIFT, shift(10, "8e03978e")).await;
    assert_eq!(again["replayed"], true);
    let (status, refused) = post("two words").await;
    assert_eq!(status, 400, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_retries_at_once_make_one_revision() {
    let plane = std::sync::Arc::new(Plane::start().await);
    plane.seed().await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let plane = plane.clone();
            tokio::spawn(async move { plane.post(SHIFT, shift(10, "once")).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        let answer = task.await.unwrap();
        assert_eq!(answer["revision"], 2, "{answer}");
        made += usize::from(answer["replayed"] == false);
    }
    assert_eq!(made, 1);
    assert_eq!(newest(&plane).await["revision"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_may_expect_a_revision() {
    let plane = Plane::start().await;
    plane.seed().await;
    let aborted = async |method: &str, path: &str, body: Value| {
        let (status, answer) = plane.http(method, path, body).await;
        assert_eq!(status, 409, "{path}: {answer}");
        answer["message"].as_str().unwrap().to_owned()
    };
    let mut body = shift(10, "");
    body["expectedRevision"] = 9.into();
    let why = aborted("POST", SHIFT, body.clone()).await;
    assert_eq!(why, "products was last changed in revision 1, not 9; read it again and retry");
    body["expectedRevision"] = 1.into();
    plane.post(SHIFT, body).await;
    let rollback = "/v1/services/products/rollback";
    aborted("POST", rollback, json!({"expectedRevision": 1})).await;
    plane.post(rollback, json!({"expectedRevision": 2})).await;
    // The mesh is at 3, the service users at 1.
    let apply = |n: u32| json!({"routes": [route("web", "users")], "expectedRevision": n});
    let why = aborted("POST", "/v1/apply", apply(2)).await;
    assert!(why.starts_with("the mesh was last changed in revision 3"), "{why}");
    plane.post("/v1/apply", apply(3)).await;
    let put = "/v1/routes/web?expectedRevision=";
    aborted("PUT", &format!("{put}1"), route("web", "products")).await;
    let (status, answer) = plane.http("PUT", &format!("{put}4"), route("web", "products")).await;
    assert_eq!(status, 200, "{answer}");
    let why = aborted("PUT", "/v1/routes/new?expectedRevision=4", route("new", "products")).await;
    assert!(why.contains("route/new is not there"), "{why}");
    aborted("DELETE", "/v1/routes/web?expectedRevision=4", Value::Null).await;
    let (status, answer) =
        plane.http("DELETE", "/v1/routes/web?expectedRevision=5", Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    let gone = plane.http("DELETE", "/v1/routes/web?expectedRevision=6", Value::Null).await;
    assert_eq!(gone.0, 404);
}

/// Of two who have seen the same revision, one wins each time, and the history is a
/// chain without a gap.
#[tokio::test(flavor = "multi_thread")]
async fn two_operators_at_once() {
    const ROUNDS: u64 = 100;
    let plane = std::sync::Arc::new(Plane::start().await);
    plane.seed().await;
    for round in 0..ROUNDS {
        let seen = 1 + round;
        let operator = |who: u64| {
            let plane = plane.clone();
            let weight = 1 + 2 * round + who;
            tokio::spawn(async move {
                let body = json!({"weights": {"v1": 1000, "v2": weight}, "allowEmpty": true,
                                  "expectedRevision": seen});
                plane.http("POST", SHIFT, body).await.0
            })
        };
        let (one, other) = (operator(0), operator(1));
        let mut statuses = [one.await.unwrap(), other.await.unwrap()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "round {round}");
    }
    let history = plane.get("/v1/history?limit=1000").await;
    let entries = history["entries"].as_array().unwrap();
    assert_eq!(entries.len() as u64, 1 + ROUNDS);
    for pair in entries.windows(2) {
        assert_eq!(pair[0]["revision"].as_u64(), pair[1]["revision"].as_u64().map(|r| r + 1));
        assert_eq!(pair[0]["previousHash"], pair[1]["hash"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_returns_only_its_service() {
    let plane = Plane::start().await;
    plane.seed().await;
    let mut both = crate::plane::mesh();
    both["services"][0]["versions"][1]["weight"] = 50.into();
    both["services"][1]["versions"][0]["weight"] = 7.into();
    both["routes"] = json!([route("web", "users")]);
    assert_eq!(plane.post("/v1/apply", both).await["revision"], 2);
    plane.post("/v1/services/products/rollback", json!({"to": 1})).await;
    let weight = async |service: &str, version: usize| {
        let found = plane.get(&format!("/v1/services/{service}")).await;
        found["versions"][version]["weight"].as_i64().unwrap()
    };
    assert_eq!(weight("products", 1).await, 0);
    assert_eq!(weight("users", 0).await, 7);
    let routes = plane.get("/v1/routes").await;
    assert_eq!(routes["routes"][0]["rules"][0]["backendRefs"][0]["service"], "users");
    let entry = newest(&plane).await;
    assert_eq!(entry["objects"], json!(["service/products"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn managed_weights_are_their_managers() {
    let plane = Plane::start().await;
    let mut mesh = crate::plane::mesh();
    mesh["services"][0]["managedBy"] = "flux".into();
    plane.post("/v1/apply", mesh).await;
    let rollback = "/v1/services/products/rollback";
    for (path, body) in [(SHIFT, shift(10, "")), (rollback, json!({"to": 1}))] {
        let (status, refused) = plane.http("POST", path, body).await;
        let message = refused["message"].as_str().unwrap().to_owned();
        assert_eq!(status, 400, "{refused}");
        assert!(message.contains("managed by flux") && message.contains("force"), "{message}");
    }
    let mut body = shift(10, "");
    body["force"] = true.into();
    assert_eq!(plane.post(SHIFT, body).await["revision"], 2);
    let back = plane.post(rollback, json!({"force": true})).await;
    assert_eq!(back["revision"], 3);
}
