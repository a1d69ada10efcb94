use std::time::Duration;

use rcgen::KeyPair;
use serde_json::json;
use tonic::Code;
use weir_mesh::identity::{SpiffeId, Svid, TrustBundle};
use weir_proto::weir::mesh::v1::Leave;
use weir_proto::weir::mesh::v1::watch_request::Message;

use crate::plane::{Plane, eventually};
use crate::router::{Door, Manner, Router, csr, hello, refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_router_gets_its_services_identity_for_its_token() {
    let plane = Plane::start().await;
    let door = Door::of(&plane);
    let key = KeyPair::generate().unwrap();
    let signed = door.sign("products", "join-products", csr(&key)).await.unwrap();
    assert_eq!(signed.spiffe_id, "spiffe://weir.local/ns/default/sa/products");
    assert_eq!(signed.not_after - signed.not_before, 3660);
    assert_eq!(TrustBundle::from_der(&signed.trust_bundle).unwrap(), door.bundle);
    let svid = Svid::from_der(signed.certificate_chain, key.serialize_der()).unwrap();
    assert_eq!(*svid.id(), SpiffeId::of_service("weir.local", "products").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_one() {
    let plane = Plane::start().await;
    let door = Door::of(&plane);
    let key = KeyPair::generate().unwrap();
    for (service, token) in
        [("products", ""), ("products", "join-users"), ("nobody", "join-products")]
    {
        let message = refused(door.sign(service, token, csr(&key)).await, Code::Unauthenticated);
        assert!(!message.contains("join-"), "{message}");
    }
    refused(door.sign("Products", "join-products", csr(&key)).await, Code::InvalidArgument);
    refused(door.sign("products", "join-products", vec![1]).await, Code::InvalidArgument);
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let message =
        refused(door.sign("products", "join-products", csr(&other)).await, Code::InvalidArgument);
    assert!(message.contains("csrDer: its key is not P-256"), "{message}");

    let tokens = r#"{"products": "join-products", "late": "join-late"}"#;
    std::fs::write(plane.dir.path().join("join.json"), tokens).unwrap();
    assert!(door.sign("late", "join-late", csr(&key)).await.is_ok(), "read again");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_needs_a_certificate_of_this_mesh() {
    let plane = Plane::start().await;
    let door = Door::of(&plane);
    let mut client = weir_proto::weir::mesh::v1::mesh_service_client::MeshServiceClient::new(
        door.channel(None).await,
    );
    let watched = client.watch(tokio_stream::iter([])).await;
    refused(watched, Code::Unauthenticated);

    let elsewhere = Plane::start().await;
    let foreign = Door::of(&elsewhere).svid("products").await;
    let mut client = weir_proto::weir::mesh::v1::mesh_service_client::MeshServiceClient::new(
        door.channel(Some(&foreign)).await,
    );
    assert!(client.watch(tokio_stream::iter([])).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_root_reaches_everyone_before_it_signs() {
    let plane = Plane::with_lifetime(Duration::from_secs(12)).await;
    plane.seed().await;
    let door = Door::of(&plane);
    let mut router =
        Router::connect(&door, hello("p1", "products", "v1", 1001), Manner::Applies).await;
    router.sees("itself", |s| s.instances.len() == 1).await;
    let answer = plane.post("/v1/certificates/rotate", json!({"newRoot": true})).await;
    assert_eq!(answer["routers"], 1, "{answer}");
    assert_eq!(answer["roots"].as_array().unwrap().len(), 2);
    let seen = router.snapshot.borrow().clone();
    assert_eq!(seen.trust_bundle.len(), 2, "applied before the answer");
    router.renewals.wait_for(|count| *count == 1).await.unwrap();

    let both = Door::of(&plane);
    assert_eq!(both.bundle.roots().len(), 2);
    let only_new =
        Door { bundle: TrustBundle::from_der([&both.bundle.roots()[1]]).unwrap(), ..both.clone() };
    // One that was away and knows only the old root can come back.
    let away = Router::connect(&door, hello("u0", "users", "v1", 3), Manner::Applies).await;
    away.send(Message::Leave(Leave {})).await;
    // In time the control plane's own certificate is from the new root.
    let renewed = eventually("its own certificate is renewed", async || {
        let own = SpiffeId::control_plane("weir.local").unwrap();
        let config = weir_mesh::identity::bootstrap_client_config(&only_new.bundle, &own).unwrap();
        let connector = weir_mesh::identity::connect_tls(only_new.address, config);
        let endpoint = tonic::transport::Endpoint::from_static("http://control-plane");
        endpoint.connect_with_connector(connector).await.ok()
    })
    .await;
    drop(renewed);
    let svid = only_new.svid("users").await;
    let mut new =
        Router::with(&only_new, &svid, hello("u1", "users", "v1", 2), Manner::Applies).await;
    new.sees("both roots", |s| s.trust_bundle.len() == 2).await;
    router.sees("the other", |s| s.instances.len() == 2).await;

    let answer = plane.post("/v1/certificates/rotate", json!({})).await;
    assert_eq!(answer["routers"], 2, "{answer}");
    assert_eq!(answer["roots"].as_array().unwrap().len(), 2, "no new root was asked for");
    router.renewals.wait_for(|count| *count == 2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_has_not_spread_does_not_sign() {
    let plane = Plane::start().await;
    plane.seed().await;
    let door = Door::of(&plane);
    let mut router =
        Router::connect(&door, hello("p1", "products", "v1", 1001), Manner::Silent).await;
    router.sees("something", |s| s.sequence > 0).await;
    let (status, answer) =
        plane.http("POST", "/v1/certificates/rotate", json!({"newRoot": true})).await;
    assert_eq!((status, &answer["status"]), (400, &json!("FAILED_PRECONDITION")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("p1"), "{answer}");
    assert_eq!(*router.renewals.borrow(), 0);
    let svid = door.svid("products").await;
    assert_eq!(svid.id().service(), "products");
    // Signed by the old root still: a peer that knows only that one lets it in.
    let mut old =
        Router::with(&door, &svid, hello("p1", "products", "v1", 1001), Manner::Applies).await;
    old.sees("two roots", |s| s.trust_bundle.len() == 2).await;
    let answer = plane.post("/v1/certificates/rotate", json!({"newRoot": true})).await;
    assert_eq!(answer["roots"].as_array().unwrap().len(), 2, "the pending one is taken up");
}
