use std::sync::Arc;
use std::time::Duration;

use tonic::Code;
use weir_mesh::jwt::{Fetch, TokenError, Verifier};
use weir_mesh::server::details;
use weir_proto::google::rpc;
use weir_proto::weir::auth::v1 as pb;

use crate::mesh::{self, Client, Others, PASSWORD};

fn verifier(client: &Client) -> Verifier {
    let client = client.clone();
    let fetch: Fetch = Arc::new(move || {
        let mut client = client.clone();
        Box::pin(async move { Ok(client.get_jwks(pb::GetJwksRequest {}).await?.into_inner()) })
    });
    Verifier::new("weir-auth", "weir", fetch)
}

#[tokio::test]
async fn tokens_of_every_instance_are_good_by_the_keys_of_every_other() {
    let data = crate::data();
    let outbound = Others::default().listen().await;
    let (_one, mut one) = mesh::start(&data, "v1", &outbound).await;
    let (_two, mut two) = mesh::start(&data, "v2", &outbound).await;
    let tokens = mesh::register(&mut one).await;
    let claims = verifier(&two).verify(&tokens.access_token).await.unwrap();
    assert_eq!(claims.sub, tokens.user_id);
    assert_eq!(claims.exp - claims.iat, 300);

    let jwks = two.get_jwks(pb::GetJwksRequest {}).await.unwrap().into_inner();
    let key = &jwks.keys[0];
    assert_eq!((key.kty.as_str(), key.crv.as_str()), ("EC", "P-256"));
    assert_eq!((key.alg.as_str(), key.r#use.as_str()), ("ES256", "sig"));

    let session = mesh::login(&mut two, PASSWORD).await.unwrap().session.expect("v2 has it");
    assert!(session.refresh_expires_at.unwrap().seconds > session.created_at.unwrap().seconds);
    // A changed token is no token.
    let (rest, signature) = tokens.access_token.rsplit_once('.').unwrap();
    let forged = format!("{}A.{signature}", &rest[..rest.len() - 1]);
    let error = verifier(&one).verify(&forged).await.unwrap_err();
    assert!(matches!(error, TokenError::Signature | TokenError::Malformed), "{error:?}");
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_reuse_ends_the_session() {
    let data = crate::data();
    let outbound = Others::default().listen().await;
    let (_auth, mut client) = mesh::start(&data, "v1", &outbound).await;
    let first = mesh::register(&mut client).await.refresh_token;
    let second = mesh::refresh(&mut client, &first).await.unwrap().refresh_token;
    let third = mesh::refresh(&mut client, &second).await.unwrap().refresh_token;
    assert!(first != second && second != third);
    let other = mesh::login(&mut client, PASSWORD).await.unwrap().refresh_token;

    let reused = mesh::refresh(&mut client, &first).await.unwrap_err();
    assert_eq!(reused.code(), Code::Unauthenticated);
    assert!(!format!("{reused:?}").contains(&first), "a token is never repeated");
    let newest = mesh::refresh(&mut client, &third).await.unwrap_err();
    assert_eq!(newest.code(), Code::Unauthenticated, "its successors end with it");
    mesh::refresh(&mut client, &other).await.expect("another session goes on");
}

#[tokio::test]
async fn of_two_who_use_one_refresh_token_at_once_at_most_one_gets_on() {
    let data = crate::data();
    let outbound = Others::default().listen().await;
    let (_one, mut one) = mesh::start(&data, "v1", &outbound).await;
    let (_two, mut two) = mesh::start(&data, "v1", &outbound).await;
    let token = mesh::register(&mut one).await.refresh_token;
    let ends = tokio::join!(mesh::refresh(&mut one, &token), mesh::refresh(&mut two, &token));
    let (won, lost) = match ends {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        both => panic!("{both:?}"),
    };
    assert_eq!(lost.code(), Code::Unauthenticated);
    assert!(mesh::refresh(&mut one, &won.refresh_token).await.is_err(), "the session is over");
}

#[tokio::test]
async fn sessions_survive_the_process_and_end_by_logout() {
    let data = crate::data();
    let outbound = Others::default().listen().await;
    let (auth, mut client) = mesh::start(&data, "v1", &outbound).await;
    let token = mesh::register(&mut client).await.refresh_token;
    // No stop: as if it were killed.
    drop(auth);

    let (_auth, mut client) = mesh::start(&data, "v2", &outbound).await;
    let token = mesh::refresh(&mut client, &token).await.unwrap().refresh_token;
    for _ in 0..2 {
        client.logout(pb::LogoutRequest { refresh_token: token.clone() }).await.unwrap();
    }
    let over = mesh::refresh(&mut client, &token).await.unwrap_err();
    assert_eq!(over.code(), Code::Unauthenticated);
    client.logout(pb::LogoutRequest { refresh_token: "unknown".into() }).await.unwrap();
}

#[tokio::test]
async fn wrong_passwords_and_unknown_emails_look_alike_and_then_have_to_wait() {
    let data = crate::data();
    let outbound = Others::default().listen().await;
    let (_auth, mut client) = mesh::start(&data, "v1", &outbound).await;
    let (_other, mut other) = mesh::start(&data, "v1", &outbound).await;
    mesh::register(&mut client).await;
    let mut unknown = Vec::new();
    for _ in 0..6 {
        let request =
            pb::LoginRequest { email: "bob@example.com".into(), password: "wrong password".into() };
        unknown.push(client.login(request).await.unwrap_err());
    }
    let mut wrong = Vec::new();
    for _ in 0..6 {
        wrong.push(mesh::login(&mut client, "wrong password").await.unwrap_err());
    }
    // Even the right one waits, and whichever instance it comes to.
    let early = mesh::login(&mut other, PASSWORD).await.unwrap_err();
    assert_eq!(early.code(), Code::ResourceExhausted);
    for (wrong, unknown) in wrong.iter().zip(&unknown) {
        assert_eq!((wrong.code(), wrong.message()), (unknown.code(), unknown.message()));
    }
    assert!(wrong[..5].iter().all(|status| status.code() == Code::Unauthenticated));
    assert_eq!(wrong[5].code(), Code::ResourceExhausted);
    let retry = details::<rpc::RetryInfo>(&wrong[5], "google.rpc.RetryInfo").remove(0);
    let delay = Duration::try_from(retry.retry_delay.unwrap()).unwrap();
    assert!(!delay.is_zero() && delay <= Duration::from_secs(1), "{delay:?}");

    tokio::time::sleep(delay).await;
    mesh::login(&mut client, PASSWORD).await.unwrap();
    // That was all of it: the count begins again.
    let status = mesh::login(&mut client, "wrong password").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_at_two_replicas_at_once_all_count() {
    let data = crate::data();
    let outbound = Others::default().listen().await;
    let ((_one, one), (_two, two)) =
        tokio::join!(mesh::start(&data, "v1", &outbound), mesh::start(&data, "v1", &outbound));
    mesh::register(&mut one.clone()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..5 {
        let mut client = [&one, &two][n % 2].clone();
        tasks.spawn(async move { mesh::login(&mut client, "wrong password").await });
    }
    for end in tasks.join_all().await {
        assert_eq!(end.unwrap_err().code(), Code::Unauthenticated);
    }
    assert_eq!(mesh::number(&data, "SELECT failures FROM failed_logins").await, 5);
}
