//! Who leads, and who may join.

use rcgen::KeyPair;
use serde_json::Value;
use tonic::Code;
use weir_mesh::identity::Svid;

use super::replica::Replica;
use super::server::shared;
use crate::router::{Manner, Router, csr, hello, refused};

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_the_next_takes_over_when_it_stops() {
    let Some((server, _turn)) = shared().await else { return };
    let first = Replica::lead(&server, "weir-lead", "cp-1").await;
    let token = first.token().await;
    let second = Replica::spawn(&server, "weir-lead", "cp-2").await;
    second.serves().await;
    assert!(!second.is_leading());
    assert_eq!(second.raw("GET", "/v1/services", &token, &Value::Null).await.0, 200);

    let door = first.door().await;
    first.stop().await;
    second.leads().await;
    assert_eq!(second.token().await, token, "the token is shared");
    assert_eq!(
        second.door().await.bundle.to_pem(),
        door.bundle.to_pem(),
        "and so is the authority"
    );
    assert!(second.get("/v1/services").await["services"].is_array());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projected_token_gives_the_identity_of_its_service_account() {
    let Some((server, _turn)) = shared().await else { return };
    let replica = Replica::lead(&server, "weir-token", "cp").await;
    server.namespace("shop-token").await;
    server.account("shop-token", "products").await;
    let door = replica.door().await;
    let key = KeyPair::generate().unwrap();

    let other = server.token("shop-token", "products", "someone-else").await;
    let why = refused(door.sign("x", &other, csr(&key)).await, Code::Unauthenticated);
    assert!(why.contains("audience"), "{why}");
    let why = refused(door.sign("x", "nonsense", csr(&key)).await, Code::Unauthenticated);
    assert!(why.contains("refuses the token"), "{why}");
    refused(door.sign("x", "", csr(&key)).await, Code::Unauthenticated);

    let token = server.token("shop-token", "products", "weir").await;
    let signed = door.sign("whatever", &token, csr(&key)).await.unwrap();
    assert_eq!(signed.spiffe_id, "spiffe://weir.local/ns/shop-token/sa/products");
    let svid = Svid::from_der(signed.certificate_chain, key.serialize_der()).unwrap();
    let door = crate::router::Door { bundle: door.bundle, ..door };

    let mut sidecar = hello("shop-token/products-1", "products.shop-token", "v1", 1);
    sidecar.instance = None;
    let mut router = Router::with(&door, &svid, sidecar.clone(), Manner::Applies).await;
    router.sees("a snapshot", |s| s.sequence > 0).await;

    let elsewhere = weir_proto::weir::mesh::v1::Hello {
        router_id: "other/products-1".into(),
        ..sidecar.clone()
    };
    let ended = Router::with(&door, &svid, elsewhere, Manner::Applies).await.end().await;
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
    let gateway = weir_proto::weir::mesh::v1::Hello {
        role: weir_proto::weir::mesh::v1::hello::Role::Gateway.into(),
        router_id: "shop-token/products-2".into(),
        ..sidecar
    };
    let ended = Router::with(&door, &svid, gateway, Manner::Applies).await.end().await;
    assert!(ended.message().contains("--gateway-accounts"), "{ended}");
}
