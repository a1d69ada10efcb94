//! Who may talk to whom.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Request};
use weir_proto::weir::users::v1::CreateUserRequest;
use weir_proto::weir::users::v1::users_service_client::UsersServiceClient;
use weir_tests::Http;

use crate::mesh;

#[tokio::test]
async fn an_identity_that_a_client_claims_is_not_believed() {
    let forged = "By=spiffe://weir.local/ns/default/sa/users;\
                  URI=spiffe://weir.local/ns/default/sa/auth";
    let user = || CreateUserRequest {
        user_id: "11111111-1111-4111-8111-111111111111".into(),
        email: "forged@example.com".into(),
        display_name: "Forged".into(),
    };
    let mut client = UsersServiceClient::new(mesh().channel().await);
    for header in [None, Some(forged)] {
        let mut request = Request::new(user());
        if let Some(header) = header {
            request.metadata_mut().insert("x-forwarded-client-cert", header.parse().unwrap());
        }
        let status = client.create_user(request).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    }
    // Nor when an application of the mesh claims it, which is somebody else.
    let outbound = mesh().process("notifications-v1-1-router").outbound.unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{outbound}")).unwrap();
    let channel = endpoint.origin("http://users".parse().unwrap()).connect().await.unwrap();
    let mut request = Request::new(user());
    request.metadata_mut().insert("x-forwarded-client-cert", forged.parse().unwrap());
    let status = UsersServiceClient::new(channel).create_user(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
}

#[tokio::test]
async fn an_inbound_listener_refuses_plaintext() {
    let routers: Vec<_> = mesh().processes().into_iter().filter(|p| p.role == "sidecar").collect();
    assert_eq!(routers.len(), 10);
    for router in routers {
        let inbound = router.inbound.unwrap();
        let mut stream = TcpStream::connect(inbound).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: products\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // Refusing may come as an end or as a reset.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/"), "{}: {answer:?}", router.name);
        let http2 = Http::http2(&format!("http://{inbound}")).get("/").try_send().await;
        assert!(http2.is_err(), "{}: {http2:?}", router.name);
    }
}

#[tokio::test]
async fn the_control_api_needs_its_token() {
    let open = Http::new(&mesh().control);
    for path in ["/v1/services", "/v1/routers", "/v1/history"] {
        assert_eq!(open.get(path).send().await.status, 401, "{path}");
        let wrong = open.get(path).header("authorization", "Bearer wrong").send().await;
        assert_eq!(wrong.status, 401, "{path}");
    }
    for path in ["/live", "/ready", "/openapi.json"] {
        assert_eq!(open.get(path).send().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn an_unknown_service_is_named() {
    let outbound = mesh().process("products-v1-1-router").outbound.unwrap();
    let http = Http::new(&format!("http://{outbound}"));
    let reply = http.get("/").header("host", "nobody").send().await;
    assert_eq!(reply.status, 404);
    assert!(reply.text().contains("nobody"), "{}", reply.text());
}
