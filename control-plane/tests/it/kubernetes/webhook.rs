//! The API server's way to the injector.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::replica::{Replica, base64};
use super::server::shared;
use super::world::Shop;
use crate::plane::eventually;

/// Asks as the API server does: by the Service's name, trusting `ca` alone.
async fn ask(replica: &Replica, ca: &[u8], path: &str, body: &Value) -> (u16, String) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(weir_mesh::identity::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(replica.address("webhook").await).await.unwrap();
    let name = format!("weir-injector.{}.svc", replica.namespace);
    let name = ServerName::try_from(name).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(path)
        .header("host", "weir-injector")
        .header("content-type", "application/json")
        .body(Full::new(bytes::Bytes::from(body.to_string())))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_learns_whom_to_trust_and_pods_get_a_router() {
    let Some((server, _turn)) = shared().await else { return };
    let hook = |name: &str| {
        json!({
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
            // No pod of these tests is asked about.
            "objectSelector": { "matchLabels": { "no": "pod" } },
            "failurePolicy": "Ignore",
            "clientConfig": { "service": {
                "name": "weir-injector", "namespace": "weir-hook", "path": "/inject",
            } },
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["pods"],
            }],
        })
    };
    server
        .apply(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": { "name": "weir-injector" },
            "webhooks": [hook("a.injector.weir.dev"), hook("b.injector.weir.dev")],
        }))
        .await;
    let replica = Replica::lead(&server, "weir-hook", "cp").await;
    let of = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
    });
    let bundle = eventually("the bundle", async || {
        let found = server.get(&of, "weir-injector").await?;
        let one = |i: usize| found["webhooks"][i]["clientConfig"]["caBundle"].as_str();
        (one(0)? == one(1)?).then(|| base64(one(0).unwrap()))
    })
    .await;

    let shop = Shop::open(&server, "shop-hook").await;
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "namespace": shop.namespace,
            "object": {
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web" },
                "spec": { "containers": [{ "name": "app", "image": "web" }] },
            },
        },
    });
    // The namespace's label may be heard of a moment later.
    eventually("an injected pod", async || {
        let (status, text) = ask(&replica, &bundle, "/inject", &review).await;
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let patch = String::from_utf8(base64(answer["response"]["patch"].as_str()?)).unwrap();
        patch.contains("weir-router").then_some(())
    })
    .await;
    let (status, text) = ask(&replica, &bundle, "/inject", &json!({ "kind": "Pod" })).await;
    assert!(status == 400 && text.contains("AdmissionReview"), "{status} {text}");
    assert_eq!(ask(&replica, &bundle, "/elsewhere", &Value::Null).await.0, 404);
}
