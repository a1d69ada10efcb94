use prost_types::FieldMask;
use tonic::{Code, Request};
use weir_proto::weir::users::v1 as pb;

use crate::mesh::{self, ADA, BOB, Key};

#[tokio::test]
async fn only_the_auth_service_creates_users() {
    let data = crate::data();
    let key = Key::publish().await;
    let users = mesh::start(&data, "v1", &key.outbound).await;
    let mut client = mesh::client(&users).await;
    let request = mesh::new_user(ADA, "ada@example.com");

    let nobody = client.create_user(Request::new(request.clone())).await.unwrap_err();
    assert_eq!(nobody.code(), Code::PermissionDenied);
    for service in ["products", "gateway", "auth2"] {
        let refused =
            client.create_user(mesh::from_peer(request.clone(), service)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{service}");
    }
    let mut foreign = Request::new(request.clone());
    let header = "URI=spiffe://elsewhere.example/ns/default/sa/auth";
    foreign.metadata_mut().insert("x-forwarded-client-cert", header.parse().unwrap());
    assert_eq!(client.create_user(foreign).await.unwrap_err().code(), Code::PermissionDenied);

    let made = client.create_user(mesh::from_peer(request, "auth")).await.unwrap().into_inner();
    assert_eq!((made.user_id.as_str(), made.locale.as_str()), (ADA, "en"));
}

#[tokio::test]
async fn creating_again_returns_what_is_there_and_an_email_has_one_user() {
    let data = crate::data();
    let key = Key::publish().await;
    let users = mesh::start(&data, "v1", &key.outbound).await;
    let mut client = mesh::client(&users).await;

    let first = mesh::create(&mut client, ADA, "ada@example.com").await;
    let again = mesh::create(&mut client, ADA, "ada@example.com").await;
    assert_eq!(first, again);
    let taken = mesh::from_peer(mesh::new_user(BOB, "ada@example.com"), "auth");
    assert_eq!(client.create_user(taken).await.unwrap_err().code(), Code::AlreadyExists);
}

#[tokio::test]
async fn a_profile_outlives_its_process_and_shows_more_in_v2() {
    let data = crate::data();
    let key = Key::publish().await;
    let v1 = mesh::start(&data, "v1", &key.outbound).await;
    let made = mesh::create(&mut mesh::client(&v1).await, ADA, "ada@example.com").await;
    assert_eq!(made.avatar_url, None);
    // No stop: as if it were killed.
    drop(v1);

    let v2 = mesh::start(&data, "v2", &key.outbound).await;
    let request = mesh::with_token(pb::GetMeRequest {}, &key.token(ADA, 60));
    let seen = mesh::client(&v2).await.get_me(request).await.unwrap().into_inner();
    assert!(seen.avatar_url.clone().unwrap().starts_with("data:image/svg+xml,"));
    assert_eq!(pb::Profile { avatar_url: None, ..seen }, made);
}

#[tokio::test]
async fn a_user_sees_only_their_own_profile() {
    let data = crate::data();
    let key = Key::publish().await;
    let users = mesh::start(&data, "v1", &key.outbound).await;
    let mut client = mesh::client(&users).await;
    mesh::create(&mut client, ADA, "ada@example.com").await;
    mesh::create(&mut client, BOB, "bob@example.com").await;
    let get =
        |id: &str, token: &str| mesh::with_token(pb::GetUserRequest { user_id: id.into() }, token);

    let token = key.token(ADA, 60);
    assert_eq!(client.get_user(get(ADA, &token)).await.unwrap().into_inner().user_id, ADA);
    let other = client.get_user(get(BOB, &token)).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    assert_eq!(mesh::fields(&client.get_user(get("7", &token)).await.unwrap_err()), ["userId"]);

    let none = client.get_me(Request::new(pb::GetMeRequest {})).await.unwrap_err();
    assert_eq!(none.code(), Code::Unauthenticated);
    let old = key.token(ADA, -31);
    let expired = client.get_me(mesh::with_token(pb::GetMeRequest {}, &old)).await.unwrap_err();
    assert_eq!(expired.code(), Code::Unauthenticated);
    assert!(!format!("{expired:?}").contains(&old), "a token is never repeated");
    let stranger = Key::publish().await.token(ADA, 60);
    let forged = client.get_me(mesh::with_token(pb::GetMeRequest {}, &stranger)).await.unwrap_err();
    assert_eq!(forged.code(), Code::Unauthenticated);
    // An account whose profile is not there (yet).
    let nobody = key.token("01938a5e-7f2c-7c3d-9b1a-2f4e6d8c0a1d", 60);
    let missing = client.get_me(mesh::with_token(pb::GetMeRequest {}, &nobody)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn an_update_changes_what_is_present_or_what_the_mask_names() {
    let data = crate::data();
    let key = Key::publish().await;
    let users = mesh::start(&data, "v1", &key.outbound).await;
    let mut client = mesh::client(&users).await;
    let made = mesh::create(&mut client, ADA, "ada@example.com").await;
    let token = key.token(ADA, 60);

    let request = pb::UpdateMeRequest {
        locale: Some("pt-BR".into()),
        preferences: [("theme".into(), "dark".into()), ("beta".into(), "on".into())].into(),
        ..Default::default()
    };
    let seen = client.update_me(mesh::with_token(request, &token)).await.unwrap().into_inner();
    assert_eq!((seen.locale.as_str(), seen.display_name.as_str()), ("pt-BR", "Ada"));
    assert_eq!(seen.preferences.len(), 2);
    let times = |p: &pb::Profile| p.updated_at.map(|t| (t.seconds, t.nanos));
    assert!(times(&seen) > times(&made));

    // Only what the mask names, though more is present; preferences are replaced.
    let request = pb::UpdateMeRequest {
        display_name: Some("Countess".into()),
        locale: Some("de".into()),
        preferences: [("font".into(), "12".into())].into(),
        update_mask: Some(FieldMask { paths: vec!["display_name".into(), "preferences".into()] }),
        ..Default::default()
    };
    let seen = client.update_me(mesh::with_token(request, &token)).await.unwrap().into_inner();
    assert_eq!((seen.locale.as_str(), seen.display_name.as_str()), ("pt-BR", "Countess"));
    assert_eq!(seen.preferences, [("font".to_owned(), "12".to_owned())].into());
}

#[tokio::test]
async fn a_refusal_names_every_wrong_field_and_changes_nothing() {
    let data = crate::data();
    let key = Key::publish().await;
    let users = mesh::start(&data, "v1", &key.outbound).await;
    let mut client = mesh::client(&users).await;
    let made = mesh::create(&mut client, ADA, "ada@example.com").await;
    let token = key.token(ADA, 60);

    let request = pb::UpdateMeRequest {
        display_name: Some("  ".into()),
        locale: Some("english".into()),
        time_zone: Some("../etc".into()),
        preferences: [("a key".into(), "x".into())].into(),
        update_mask: None,
    };
    let status = client.update_me(mesh::with_token(request, &token)).await.unwrap_err();
    // "english" has the shape of a language tag, and that is all that is asked.
    assert_eq!(mesh::fields(&status), ["displayName", "timeZone", "preferences"]);

    let request = pb::UpdateMeRequest {
        update_mask: Some(FieldMask { paths: vec!["email".into(), "time_zone".into()] }),
        ..Default::default()
    };
    let status = client.update_me(mesh::with_token(request, &token)).await.unwrap_err();
    assert_eq!(mesh::fields(&status), ["updateMask", "timeZone"]);

    let wrong = pb::CreateUserRequest {
        user_id: "7".into(),
        email: "x".into(),
        display_name: String::new(),
    };
    let status = client.create_user(mesh::from_peer(wrong, "auth")).await.unwrap_err();
    assert_eq!(mesh::fields(&status), ["userId", "email", "displayName"]);

    let seen = client.get_me(mesh::with_token(pb::GetMeRequest {}, &token)).await.unwrap();
    assert_eq!(seen.into_inner(), made);
}

/// Two processes write to one database at once.
#[tokio::test(flavor = "multi_thread")]
async fn no_update_of_two_replicas_is_lost_and_a_profile_is_made_once() {
    let data = crate::data();
    let key = Key::publish().await;
    let (one, two) = tokio::join!(
        mesh::start(&data, "v1", &key.outbound),
        mesh::start(&data, "v1", &key.outbound),
    );
    let both = [mesh::client(&one).await, mesh::client(&two).await];
    let client = |n: usize| both[n % 2].clone();

    // The same profile by one id, and one email for two ids.
    let ends = futures_util::future::join_all((0..12).map(|n| {
        let id = if n % 3 == 0 { BOB } else { ADA };
        let request = mesh::from_peer(mesh::new_user(id, "ada@example.com"), "auth");
        let mut client = client(n);
        async move { client.create_user(request).await.map(|made| made.into_inner().user_id) }
    }))
    .await;
    let made = ends.iter().filter_map(|end| end.as_ref().ok());
    let user = made.clone().next().unwrap().clone();
    assert!(made.clone().all(|id| *id == user), "{ends:?}");
    let refused = ends.iter().filter_map(|end| end.as_ref().err());
    assert!(refused.clone().all(|status| status.code() == Code::AlreadyExists), "{ends:?}");
    assert_eq!(made.count(), if user == BOB { 4 } else { 8 });

    let token = key.token(&user, 60);
    let updates = futures_util::future::join_all((0..20).map(|n| {
        let request = pb::UpdateMeRequest {
            preferences: [(format!("key-{n}"), "on".to_owned())].into(),
            ..Default::default()
        };
        let (mut client, request) = (client(n), mesh::with_token(request, &token));
        async move { client.update_me(request).await }
    }));
    for updated in updates.await {
        updated.unwrap();
    }
    let request = mesh::with_token(pb::GetMeRequest {}, &token);
    let seen = client(0).get_me(request).await.unwrap().into_inner();
    assert_eq!(seen.preferences.len(), 20);
}
