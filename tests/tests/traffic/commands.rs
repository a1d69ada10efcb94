//! `weir` against a running mesh, which it finds by itself.

use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use weir_proto::weir::control::v1::ListServicesRequest;
use weir_proto::weir::control::v1::control_service_client::ControlServiceClient;

use crate::{mesh, shift, turn};

fn weights() -> Value {
    let services = mesh().weir(&["get", "services", "-o", "json"]).json();
    let all = services["services"].as_array().unwrap();
    let products = all.iter().find(|s| s["service"]["name"] == "products").unwrap();
    let versions = products["service"]["versions"].as_array().unwrap().iter();
    // A weight of 0 is not written in protobuf's JSON mapping.
    versions.map(|v| json!([v["version"], v["weight"].as_u64().unwrap_or(0)])).collect()
}

#[tokio::test]
async fn shift_history_and_rollback() {
    let _turn = turn().await;
    shift(json!({"v1": 100, "v2": 0})).await;
    let command =
        ["shift", "products", "v1=90", "v2=10", "--wait", "--reason", "a canary", "-o", "json"];
    let change = mesh().weir(&command).json();
    assert_eq!(change["converged"]["applied"], change["converged"]["routers"]);
    assert_eq!(weights(), json!([["v1", 90], ["v2", 10]]));
    let again = mesh().weir(&["shift", "products", "v1=90", "v2=10", "-o", "json"]).json();
    assert_eq!((&again["unchanged"], &again["revision"]), (&json!(true), &change["revision"]));

    let history = mesh().weir(&["history", "products", "-o", "json"]).json();
    let newest = &history["entries"][0];
    assert_eq!(
        (&newest["revision"], &newest["action"], &newest["reason"], &newest["objects"]),
        (&change["revision"], &json!("shift"), &json!("a canary"), &json!(["service/products"]))
    );
    assert!(newest["actor"].as_str().is_some_and(|actor| !actor.is_empty()), "{newest}");
    assert!(newest["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{newest}");
    let line = newest["changes"][0].as_str().unwrap();
    assert!(line.contains("v1=100 v2=0") && line.contains("v1=90 v2=10"), "{line}");

    let back = mesh().weir(&["rollback", "products", "--wait", "-o", "json"]).json();
    assert_eq!(back["revision"].as_u64(), change["revision"].as_u64().map(|r| r + 1));
    assert_eq!(weights(), json!([["v1", 100], ["v2", 0]]));
    let to = change["revision"].to_string();
    mesh().weir(&["rollback", "products", "--to", &to, "--wait"]).ok();
    assert_eq!(weights(), json!([["v1", 90], ["v2", 10]]));
    let entries = mesh().weir(&["history", "products", "-o", "json", "--limit", "2"]).json();
    let actions: Vec<_> =
        entries["entries"].as_array().unwrap().iter().map(|e| e["action"].clone()).collect();
    assert_eq!(actions, ["rollback", "rollback"]);
    shift(json!({"v1": 100, "v2": 0})).await;
}

#[tokio::test]
async fn status_tells_of_every_router() {
    let _turn = turn().await;
    shift(json!({"v1": 100, "v2": 0})).await;
    let status = mesh().weir(&["status", "-o", "json"]).json();
    let routers = status["routers"].as_array().unwrap_or_else(|| panic!("{status}"));
    assert_eq!(routers.len(), 11);
    for router in routers {
        assert_eq!(router["live"], true, "{router}");
        assert!(router["certificateNotAfter"].as_str().is_some(), "{router}");
        assert!(router.get("refused").is_none_or(|r| r == ""), "{router}");
    }
    let text = mesh().weir(&["status"]).ok();
    assert!(text.contains("products-v1-1") && text.contains("gateway"), "{text}");
}

#[tokio::test]
async fn lists() {
    let instances = mesh().weir(&["get", "instances", "-o", "json"]).json();
    let instances = instances["instances"].as_array().unwrap().clone();
    assert_eq!(instances.len(), 10);
    assert!(instances.iter().all(|instance| instance["healthy"] == true), "{instances:?}");
    let routes = mesh().weir(&["get", "routes", "-o", "json"]).json();
    assert_eq!(routes["items"].as_array().unwrap().len(), 8);
    for what in ["services", "instances", "routers", "routes", "edges"] {
        let text = mesh().weir(&["get", what]).ok();
        assert!(text.lines().count() >= 1, "{what}: {text}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(mesh().weir(&["completions", shell]).ok().contains("weir"));
    }
}

#[tokio::test]
async fn wrong_commands_say_what_is_wrong() {
    let cases: [(&[&str], &str); 6] = [
        (&["shift", "products", "v1=-5"], "-5 is below 0"),
        (&["shift", "products", "v9=1"], "v9"),
        (&["shift", "products", "v1=0", "v2=0"], "weights"),
        (&["shift", "nobody", "v1=1"], "nobody"),
        (&["history", "products", "--token", "wrong"], "token"),
        (&["status", "--control", "http://127.0.0.1:1", "--token", "t"], "cannot reach"),
    ];
    for (command, wanted) in cases {
        let error = mesh().weir(command).failed();
        assert!(error.contains(wanted), "{command:?}: {error}");
        assert!(!error.contains("panicked"), "{error}");
        assert!(!error.contains(&mesh().token), "{error}");
    }
}

#[tokio::test]
async fn the_control_api_speaks_grpc_as_well() {
    let channel = Endpoint::from_shared(mesh().control.clone()).unwrap().connect().await.unwrap();
    let mut client = ControlServiceClient::new(channel);
    let status = client.list_services(ListServicesRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut request = Request::new(ListServicesRequest {});
    let token = MetadataValue::try_from(format!("Bearer {}", mesh().token)).unwrap();
    request.metadata_mut().insert("authorization", token);
    assert_eq!(client.list_services(request).await.unwrap().into_inner().services.len(), 4);
}
