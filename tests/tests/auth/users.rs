//! gRPC, the mesh's own tokens, and whether a user still is one.

use serde_json::json;
use tonic::{Code, Request};
use weir_proto::weir::users::v1::users_service_client::UsersServiceClient;
use weir_proto::weir::users::v1::{CheckActiveRequest, GetMeRequest, UpdateMeRequest};
use weir_tests::Account;

use crate::token::with;
use crate::{from, mesh, world};

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn a_user_is_asked_for_and_grpc_is_told_in_its_own_words() {
    let account = Account::register(&mesh().http()).await;
    let mut client = UsersServiceClient::new(mesh().channel().await);
    let status = client.get_me(GetMeRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");

    let me = client.get_me(with_token(GetMeRequest {}, &account.access_token)).await.unwrap();
    assert_eq!(me.into_inner().user_id, account.user_id);
    let json = mesh().http().with_token(&account.access_token).get("/v1/users/me").ok().await;
    assert_eq!(json["userId"], account.user_id.as_str());

    // Signed well, for one who is no user, or is none any more.
    for sub in ["11111111-1111-4111-8111-111111111111", "ada"] {
        let token = world().signer.token(&with("sub", json!(sub)));
        let status = client.get_me(with_token(GetMeRequest {}, &token)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains("not active"), "{status:?}");
    }

    // By gRPC and by the JSON that stands for it.
    let update = with_token(UpdateMeRequest::default(), &account.access_token);
    let status = client.update_me(update).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(status.message().contains("no-admin-outside, rule no-change"), "{status:?}");
    // Also where a filter makes it what it is.
    for path in ["/v1/users/me", "/api/v1/users/me"] {
        let http = mesh().http().with_token(&account.access_token);
        let call = http.call(http::Method::PATCH, path);
        let reply = call.json(&json!({ "displayName": "Ada" })).send().await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text());
        assert!(reply.text().contains("no-change"), "{path}: {}", reply.text());
    }
    let http = mesh().http().with_token(&account.access_token);
    let json = http.get("/api/v1/users/me").ok().await;
    assert_eq!(json["userId"], account.user_id.as_str());
}

#[tokio::test]
async fn who_is_a_user_is_told_to_routers_only() {
    let account = Account::register(&mesh().http()).await;
    let question = CheckActiveRequest { user_id: account.user_id.clone() };
    let mut outside = UsersServiceClient::new(mesh().channel().await);
    let asked = outside.check_active(with_token(question.clone(), &account.access_token)).await;
    assert_eq!(asked.unwrap_err().code(), Code::PermissionDenied);
    drop(from("caller", "users"));
    let outbound = mesh().process("caller-v1-1-router").outbound.unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{outbound}")).unwrap();
    let channel = endpoint.origin("http://users".parse().unwrap()).connect().await.unwrap();
    let answer = UsersServiceClient::new(channel).check_active(question).await.unwrap();
    assert!(answer.into_inner().active);
}
