use serde_json::{Value, json};
use tonic::Code;
use weir_proto::weir::control::v1 as pb;

use crate::plane::{Plane, mesh, route};
use crate::router::{Door, Manner, Router, hello, refused};

/// Instances of both versions of products, so that weights may be sent to them.
async fn products(plane: &Plane) -> [Router; 2] {
    let door = Door::of(plane);
    [
        Router::connect(&door, hello("p1", "products", "v1", 1001), Manner::Applies).await,
        Router::connect(&door, hello("p2", "products", "v2", 1002), Manner::Applies).await,
    ]
}

async fn instances(plane: &Plane, count: usize) {
    crate::plane::eventually("instances", async || {
        let listed = plane.get("/v1/instances").await;
        (listed["instances"].as_array().unwrap().len() == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shift_is_made_waited_for_and_remembered() {
    let plane = Plane::start().await;
    plane.seed().await;
    let _routers = products(&plane).await;
    instances(&plane, 2).await;
    let body = json!({"weights": {"v1": 90, "v2": 10}, "wait": true, "reason": "canary"});
    let answer = plane.post("/v1/services/products/shift", body.clone()).await;
    assert_eq!(answer["revision"], 2);
    assert_eq!(answer["converged"]["routers"], 2, "{answer}");
    assert_eq!(answer["converged"]["applied"], 2, "{answer}");
    assert!(answer["converged"]["slowestMs"].as_u64().unwrap() < 2000, "{answer}");
    assert_eq!(answer["converged"]["pending"], json!([]));

    let again = plane.post("/v1/services/products/shift", body).await;
    assert_eq!((&again["unchanged"], &again["revision"]), (&json!(true), &json!(2)));

    let service = plane.get("/v1/services/products").await;
    assert_eq!(service["versions"][1], json!({"version": "v2", "weight": 10, "addresses": []}));
    let history = plane.get("/v1/services/products/history").await;
    let entry = &history["entries"][0];
    assert_eq!(entry["changes"], json!(["products: v1=100 v2=0 -> v1=90 v2=10"]));
    assert_eq!(entry["reason"], "canary");
    assert_eq!((&entry["actor"], &entry["action"]), (&json!("admin"), &json!("shift")));
    assert!(entry["time"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_named_gets_nothing() {
    let plane = Plane::start().await;
    plane.seed().await;
    let _routers = products(&plane).await;
    instances(&plane, 2).await;
    plane.post("/v1/services/products/shift", json!({"weights": {"v2": 1}})).await;
    let service = plane.get("/v1/services/products").await;
    assert_eq!(
        service["versions"],
        json!([
            {"version": "v1", "weight": 0, "addresses": []},
            {"version": "v2", "weight": 1, "addresses": []},
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_shifts_are_refused_with_every_field() {
    let plane = Plane::start().await;
    plane.seed().await;
    let _routers = products(&plane).await;
    instances(&plane, 2).await;
    let long = "x".repeat(1001);
    let cases = [
        (json!({"weights": {"v1": -5}}), "weights.v1: -5 is below 0"),
        (json!({"weights": {"v1": 1_000_001}}), "weights.v1: 1000001 is above 1000000"),
        (
            json!({"weights": {"v9": 1}}),
            "weights.v9: no such version; products has v1, v2; set allowEmpty (--allow-empty) to \
             weight a version that has no instance yet",
        ),
        (json!({"weights": {"v1": 0, "v2": 0}}), "weights: sum to 0"),
        (json!({"weights": {"v1": 0}}), "weights: sum to 0"),
        (json!({}), "weights: is empty"),
        (json!({"weights": {"V!": 1}}), "weights.V!: "),
        (json!({"weights": {"v1": 1}, "reason": long}), "reason: has 1001 characters"),
        (json!({"weights": {"v1": 1}, "waitSeconds": 301}), "waitSeconds: 301 is above 300"),
        (json!({"weights": {"v1": 1}, "sticky": {}}), "sticky: is empty"),
        (json!({"weights": {"v1": 1}, "sticky": {"header": "a b"}}), "sticky.header: "),
        (
            json!({"weights": {"v1": 1}, "sticky": {"user": true}, "clearSticky": true}),
            "clearSticky: cannot be set",
        ),
        (json!({"weights": {"v1": 1}, "wieght": 1}), "wieght"),
        (json!({"weights": {"v1": "many"}}), "weights"),
    ];
    for (body, expected) in cases {
        let (status, answer) =
            plane.http("POST", "/v1/services/products/shift", body.clone()).await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert_eq!(answer["status"], "INVALID_ARGUMENT", "{answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(expected), "{body}: {message}");
    }
    let both = json!({"weights": {"v1": -5, "v9": 1}, "reason": "\u{7}"});
    let (_, answer) = plane.http("POST", "/v1/services/products/shift", both).await;
    let violations = answer["details"][0]["fieldViolations"].as_array().unwrap();
    let fields: Vec<_> = violations.iter().map(|v| v["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["reason", "weights.v1", "weights.v9"], "{answer}");
    assert_eq!(plane.get("/v1/mesh").await["revision"], 1, "the old state stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_go_only_where_something_healthy_runs_unless_told_otherwise() {
    let plane = Plane::start().await;
    plane.seed().await;
    let path = "/v1/services/products/shift";
    let (status, answer) = plane.http("POST", path, json!({"weights": {"v1": 1, "v2": 1}})).await;
    assert_eq!(status, 400);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("weights.v2: products v2 has no healthy instance"), "{message}");
    assert!(!message.contains("weights.v1"), "to send v1 less is always right: {message}");
    let body = json!({"weights": {"v1": 1, "v2": 1, "v3": 1}, "allowEmpty": true});
    assert_eq!(plane.post(path, body).await["revision"], 2);
    let service = plane.get("/v1/services/products").await;
    assert_eq!(service["versions"][2]["version"], "v3", "new versions come last");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_things_are_not_found_and_a_stale_writer_is_aborted() {
    let plane = Plane::start().await;
    plane.seed().await;
    let shift = |service: &str| format!("/v1/services/{service}/shift");
    let body = json!({"weights": {"v1": 1}});
    let (status, answer) = plane.http("POST", &shift("nobody"), body).await;
    assert_eq!((status, &answer["status"]), (404, &json!("NOT_FOUND")));
    assert!(answer["message"].as_str().unwrap().contains("products, users"), "{answer}");
    let body = json!({"weights": {"v1": 1, "v2": 1}, "expectedRevision": 7, "allowEmpty": true});
    let (status, answer) = plane.http("POST", &shift("products"), body).await;
    assert_eq!((status, &answer["status"]), (409, &json!("ABORTED")));
    for (method, path, expected) in [
        ("GET", "/v1/services/nobody", 404),
        ("GET", "/v1/services/nobody/history", 404),
        ("POST", "/v1/services/nobody/rollback", 404),
        ("DELETE", "/v1/routes/nobody", 404),
        ("GET", "/v1/traces/00000000", 404),
        ("GET", "/v1/traces/xyz", 400),
        ("GET", "/v1/history?limit=1001", 400),
        ("GET", "/v1/history?nonsense=1", 400),
        ("GET", "/v1/nonsense", 404),
        ("PATCH", "/v1/services", 405),
    ] {
        let (status, answer) = plane.http(method, path, Value::Null).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_brings_back_one_service_only() {
    let plane = Plane::start().await;
    plane.seed().await;
    let shift = async |service: &str, weights: Value| {
        let body = json!({"weights": weights, "allowEmpty": true});
        plane.post(&format!("/v1/services/{service}/shift"), body).await["revision"].clone()
    };
    let weights = async |service: &str| {
        let service = plane.get(&format!("/v1/services/{service}")).await;
        let versions = service["versions"].as_array().unwrap().clone();
        versions.iter().map(|v| v["weight"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(shift("products", json!({"v1": 50, "v2": 50})).await, 2);
    assert_eq!(shift("users", json!({"v1": 7})).await, 3);
    assert_eq!(shift("products", json!({"v2": 1})).await, 4);

    let back = plane.post("/v1/services/products/rollback", json!({})).await;
    assert_eq!(back["revision"], 5);
    assert_eq!(weights("products").await, [50, 50]);
    plane.post("/v1/services/products/rollback", json!({"to": 1})).await;
    assert_eq!(weights("products").await, [100, 0]);
    plane.post("/v1/services/products/rollback", json!({"to": 3})).await;
    assert_eq!(weights("products").await, [50, 50], "at revision 3 it was as 2 made it");
    assert_eq!(weights("users").await, [7]);

    let refuse =
        async |body: Value| plane.http("POST", "/v1/services/products/rollback", body).await;
    let (status, answer) = refuse(json!({"to": 99})).await;
    assert_eq!(status, 400, "{answer}");
    let entries = plane.get("/v1/history?limit=2").await["entries"].clone();
    assert_eq!(entries.as_array().unwrap().len(), 2);
    assert_eq!(entries[0]["action"], "rollback");
    assert_eq!(entries[0]["objects"], json!(["service/products"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nothing_before_the_beginning() {
    let plane = Plane::start().await;
    plane.seed().await;
    let (status, answer) = plane.http("POST", "/v1/services/products/rollback", json!({})).await;
    assert_eq!((status, &answer["status"]), (400, &json!("FAILED_PRECONDITION")));
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_is_whole_or_nothing() {
    let plane = Plane::start().await;
    let mut bad = mesh();
    bad["routes"][0]["rules"][0]["backendRefs"][0]["weight"] = json!(-5);
    bad["services"][1]["name"] = json!("products");
    bad["services"][1]["descriptorSet"] = json!("/wD/AA==");
    bad["options"] = json!({"traceSampling": 2});
    let (status, answer) = plane.http("POST", "/v1/apply", bad).await;
    assert_eq!(status, 400);
    let message = answer["message"].as_str().unwrap();
    for expected in [
        "routes[0].rules[0].backendRefs[0].weight: -5 is below 0",
        "services[1].name: \"products\" is named twice",
        "services[1].descriptorSet: ",
        "options.traceSampling: 2 is not between",
    ] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
    assert_eq!(plane.get("/v1/mesh").await["revision"], 0);

    let mut dangling = mesh();
    dangling["routes"][0] = route("web", "nobody");
    let (_, answer) = plane.http("POST", "/v1/apply", dangling).await;
    let message = answer["message"].as_str().unwrap();
    let expected = "routes[0].rules[0].backendRefs[0].service: no service \"nobody\"";
    assert!(message.contains(expected), "{message}");

    plane.seed().await;
    let again = plane.post("/v1/apply", mesh()).await;
    assert_eq!((&again["unchanged"], &again["revision"]), (&json!(true), &json!(1)));

    let only = json!({"services": [mesh()["services"][1]], "prune": true});
    assert_eq!(plane.post("/v1/apply", only).await["revision"], 2);
    let services = plane.get("/v1/services").await["services"].clone();
    assert_eq!(services.as_array().unwrap().len(), 1);
    assert_eq!(plane.get("/v1/routes").await["routes"], json!([]), "pruned with its service");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_route_to_it_cannot_go_alone() {
    let plane = Plane::start().await;
    plane.seed().await;
    let body =
        json!({"services": [mesh()["services"][1]], "routes": mesh()["routes"], "prune": true});
    let (status, answer) = plane.http("POST", "/v1/apply", body).await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_put_listed_and_deleted() {
    let plane = Plane::start().await;
    plane.seed().await;
    let (status, answer) = plane.http("PUT", "/v1/routes/api", route("api", "users")).await;
    assert_eq!((status, &answer["revision"]), (200, &json!(2)));
    let listed = plane.get("/v1/routes").await["routes"].clone();
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["api", "web"]);
    let mut bad = route("api", "users");
    bad["rules"][0]["backendRefs"][0]["version"] = json!("v9");
    let (status, answer) = plane.http("PUT", "/v1/routes/api", bad).await;
    assert_eq!(status, 400);
    let message = answer["message"].as_str().unwrap();
    let expected = "route.rules[0].backendRefs[0].version: no such version \"v9\"; users has v1";
    assert!(message.contains(expected), "{message}");
    let mut orphan = route("api", "products");
    orphan["parentRefs"] = json!([{"kind": "Gateway"}, {"kind": "Service", "name": "nobody"}]);
    let (status, answer) = plane.http("PUT", "/v1/routes/api", orphan).await;
    assert_eq!(status, 400, "{answer}");
    let expected = "route.parentRefs[1].name: no service \"nobody\"; services: products, users";
    assert_eq!(answer["message"], expected);
    let (status, answer) = plane.http("DELETE", "/v1/routes/api", Value::Null).await;
    assert_eq!((status, &answer["revision"]), (200, &json!(3)));
    assert_eq!(plane.get("/v1/history").await["entries"][0]["action"], "delete-route");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_of_connections_are_put_listed_kept_and_deleted() {
    let plane = Plane::start().await;
    plane.seed().await;
    let db = json!({"name": "db", "protocol": "PROTOCOL_TCP",
        "versions": [{"version": "v1", "weight": 1}]});
    plane.post("/v1/apply", json!({"services": [db]})).await;
    let route = json!({"name": "db", "kind": "TCP_ROUTE",
        "parentRefs": [{"kind": "Service", "name": "db"}],
        "backendRefs": [{"service": "db", "version": "v1", "weight": 1}]});
    let (status, answer) = plane.http("PUT", "/v1/tcp-routes/db", route.clone()).await;
    assert_eq!(status, 200, "{answer}");
    let listed = plane.get("/v1/tcp-routes").await;
    assert_eq!(listed["routes"][0]["name"], "db", "{listed}");
    let entry = plane.get("/v1/history").await["entries"][0].clone();
    assert_eq!(entry["objects"], json!(["tcp-route/db"]), "{entry}");

    let mut bad = route.clone();
    bad["parentRefs"] = json!([{"kind": "Service", "name": "products"}]);
    bad["backendRefs"] = json!([
        {"service": "nobody", "weight": 1}, {"service": "db", "version": "v9", "weight": 1},
        {"service": "products", "weight": 1},
    ]);
    let (status, answer) = plane.http("PUT", "/v1/tcp-routes/db", bad).await;
    assert_eq!(status, 400, "{answer}");
    let text = answer.to_string();
    for wanted in [
        "route.parentRefs[0].name",
        "the protocol of products is not tcp",
        "route.backendRefs[0].service",
        "route.backendRefs[1].version",
        "route.backendRefs[2].service",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    // A service that a route names cannot go alone, and routes go when they are pruned.
    let others = json!({"services": mesh()["services"], "tcpRoutes": [route], "prune": true});
    let (status, answer) = plane.http("POST", "/v1/apply", others).await;
    assert_eq!(status, 400, "{answer}");
    let (status, answer) = plane.http("DELETE", "/v1/tcp-routes/db", Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = plane.http("DELETE", "/v1/tcp-routes/db", Value::Null).await;
    assert_eq!(status, 404, "{answer}");
    assert_eq!(plane.get("/v1/tcp-routes").await["routes"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_mistakes_of_a_route_are_told_at_once() {
    let plane = Plane::start().await;
    plane.seed().await;
    let mut wrong = route("api", "back-v2");
    wrong["rules"][0]["backendRefs"][0]["weight"] = json!(-1);
    wrong["parentRefs"] = json!([{"kind": "Service", "name": "nobody"}]);
    let mut expected = [
        "rules[0].backendRefs[0].weight: -1 is below 0",
        "parentRefs[0].name: no service \"nobody\"; services: products, users",
        "rules[0].backendRefs[0].service: no service \"back-v2\"; services: products, users",
    ]
    .map(str::to_owned);
    expected.sort();
    let told = |answer: &Value, at: &str| {
        let fields = answer["details"][0]["fieldViolations"].as_array().unwrap().clone();
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let line = |v: &Value| format!("{}: {}", text(&v["field"]), text(&v["description"]));
        let lines = fields.iter().map(line);
        let mut lines: Vec<_> =
            lines.map(|line| line.strip_prefix(at).unwrap_or(&line).to_owned()).collect();
        lines.sort();
        lines
    };
    let (status, answer) = plane.http("PUT", "/v1/routes/api", wrong.clone()).await;
    assert_eq!((status, told(&answer, "route.")), (400, expected.to_vec()));
    let (status, answer) = plane.http("POST", "/v1/apply", json!({"routes": [wrong]})).await;
    assert_eq!((status, told(&answer, "routes[0].")), (400, expected.to_vec()));
    assert_eq!(plane.get("/v1/mesh").await["revision"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_answers_in_grpc_too() {
    let plane = Plane::start().await;
    plane.seed().await;
    let mut grpc = plane.grpc().await;
    let mesh = grpc.get_mesh(pb::GetMeshRequest {}).await.unwrap().into_inner();
    assert_eq!((mesh.trust_domain.as_str(), mesh.revision), ("weir.local", 1));
    let services = grpc.list_services(pb::ListServicesRequest {}).await.unwrap().into_inner();
    assert_eq!(services.services.len(), 2);
    let name = || "products".to_owned();
    let get = pb::GetServiceRequest { service: name() };
    assert_eq!(grpc.get_service(get).await.unwrap().into_inner().name, "products");
    let history = pb::ListHistoryRequest { service: name(), ..Default::default() };
    assert_eq!(grpc.list_history(history).await.unwrap().into_inner().entries.len(), 1);
    let routes = grpc.list_routes(pb::ListRoutesRequest {}).await.unwrap().into_inner();
    assert_eq!(routes.routes.len(), 1);
    let instances = pb::ListInstancesRequest::default();
    assert!(grpc.list_instances(instances).await.unwrap().into_inner().instances.is_empty());
    assert!(grpc.list_routers(pb::ListRoutersRequest {}).await.is_ok());
    assert!(grpc.list_edges(pb::ListEdgesRequest {}).await.is_ok());
    assert!(grpc.list_traces(pb::ListTracesRequest::default()).await.is_ok());

    let shift = pb::ShiftRequest {
        service: name(),
        weights: [("v1".to_owned(), -5)].into(),
        ..Default::default()
    };
    let status = grpc.shift(shift).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(!status.details().is_empty(), "google.rpc.BadRequest");
    let shift = pb::ShiftRequest {
        service: name(),
        weights: [("v1".to_owned(), 1), ("v2".to_owned(), 1)].into(),
        allow_empty: true,
        ..Default::default()
    };
    assert_eq!(grpc.shift(shift).await.unwrap().into_inner().revision, 2);
    let back = pb::RollbackRequest { service: name(), ..Default::default() };
    assert_eq!(grpc.rollback(back).await.unwrap().into_inner().revision, 3);
    let delete = pb::DeleteRouteRequest { name: "web".into(), ..Default::default() };
    assert_eq!(grpc.delete_route(delete).await.unwrap().into_inner().revision, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_there_is_nothing_to_see() {
    let plane = Plane::start().await;
    let wrong = "Bearer not-the-token";
    for headers in [&[][..], &[("authorization", wrong)], &[("authorization", "Basic eDp5")]] {
        for path in ["/v1/mesh", "/metrics", "/v1/nonsense"] {
            let (status, text) = plane.raw("GET", path, headers, String::new()).await;
            assert_eq!(status, 401, "{path}");
            assert!(text.contains("token") && !text.contains(&plane.token), "{text}");
        }
    }
    for token in ["", "not-the-token"] {
        let mut grpc = plane.grpc_with(token).await;
        refused(grpc.get_mesh(pb::GetMeshRequest {}).await, Code::Unauthenticated);
    }
    for path in ["/", "/live", "/ready", "/openapi.json"] {
        let (status, text) = plane.raw("GET", path, &[], String::new()).await;
        assert_eq!(status, 200, "{path}");
        assert!(!text.contains(&plane.token));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_says_on_whose_behalf() {
    let plane = Plane::start().await;
    let auth = format!("bearer {}", plane.token);
    let headers = [("authorization", auth.as_str()), ("x-weir-actor", "alice")];
    let (status, _) = plane.raw("POST", "/v1/apply", &headers, mesh().to_string()).await;
    assert_eq!(status, 200);
    let entry = plane.get("/v1/history").await["entries"][0].clone();
    assert_eq!(entry["actor"], "admin on behalf of alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_describes_itself() {
    let plane = Plane::start().await;
    let (_, text) = plane.raw("GET", "/openapi.json", &[], String::new()).await;
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["paths"]["/v1/services/{service}/shift"]["post"].is_object());
    let auth = format!("Bearer {}", plane.token);
    let headers = [("authorization", auth.as_str())];
    let (status, text) = plane.raw("GET", "/metrics", &headers, String::new()).await;
    assert_eq!(status, 200);
    assert!(text.contains("weir_control_revision 0"), "{text}");
    let (status, _) = plane.raw("GET", "/", &[], String::new()).await;
    assert_eq!(status, 200);

    let endpoint = format!("http://{}", plane.running.api);
    let channel = tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.unwrap());
    let check = tonic_health::pb::HealthCheckRequest { service: String::new() };
    assert_eq!(health.check(check).await.unwrap().into_inner().status, 1, "without a token");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_shifts_each_get_their_own_revision() {
    let plane = std::sync::Arc::new(Plane::start().await);
    plane.seed().await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 1..=20 {
        let plane = plane.clone();
        tasks.spawn(async move {
            let body = json!({"weights": {"v1": 100 + i}, "allowEmpty": true});
            let body = if i % 2 == 0 {
                body
            } else {
                json!({"weights": {"v1": 1, "v2": i}, "allowEmpty": true})
            };
            plane.post("/v1/services/products/shift", body).await["revision"].as_u64().unwrap()
        });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort_unstable();
    assert_eq!(revisions, (2..=21).collect::<Vec<_>>());
    let entries = plane.get("/v1/history?limit=1000").await["entries"].clone();
    assert_eq!(entries.as_array().unwrap().len(), 21);
}
