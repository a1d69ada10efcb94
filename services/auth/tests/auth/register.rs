use tonic::{Code, Request};
use weir_mesh::server::database::Query;
use weir_mesh::telemetry::trace::SpanContext;
use weir_proto::weir::auth::v1 as pb;

use crate::mesh::{self, EMAIL, Others, PASSWORD};

#[tokio::test]
async fn registering_makes_a_profile_and_a_welcome_in_the_callers_trace() {
    let data = crate::data();
    let others = Others::default();
    let (_auth, mut client) = mesh::start(&data, "v1", &others.listen().await).await;
    let caller = SpanContext::root(true);
    let mut request = Request::new(mesh::registration());
    caller.inject(request.metadata_mut().as_mut());

    let tokens = client.register(request).await.unwrap().into_inner();

    assert_eq!((tokens.token_type.as_str(), tokens.expires_in), ("Bearer", 300));
    assert_eq!(tokens.session, None, "v1 has no session");
    let made = others.with(|state| state.users.values().cloned().collect::<Vec<_>>());
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].user_id, tokens.user_id);
    assert_eq!((made[0].email.as_str(), made[0].display_name.as_str()), (EMAIL, "Ada"));
    mesh::eventually("the welcome", || others.with(|state| state.welcomes.len() == 1)).await;
    others.with(|state| {
        assert_eq!(state.welcomes[0].user_id, tokens.user_id);
        assert_eq!(state.welcomes[0].kind, "welcome");
        assert_eq!(state.traces.len(), 2);
        for trace in &state.traces {
            assert!(trace.contains(&caller.trace_id().to_string()), "{trace}");
            assert!(!trace.contains(&caller.span_id().to_string()), "its own spans are between");
        }
    });
}

#[tokio::test]
async fn while_users_is_down_registering_is_refused_and_later_the_same_works() {
    let data = crate::data();
    let others = Others::default();
    let (_auth, mut client) = mesh::start(&data, "v1", &others.listen().await).await;
    others.with(|state| state.users_down = true);

    for _ in 0..2 {
        let status = client.register(mesh::registration()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    }
    let early = mesh::login(&mut client, PASSWORD).await.unwrap_err();
    assert_eq!(early.code(), Code::Unauthenticated, "there is no account yet");

    others.with(|state| state.users_down = false);
    let tokens = mesh::register(&mut client).await;
    assert_eq!(mesh::login(&mut client, PASSWORD).await.unwrap().user_id, tokens.user_id);
    let again = client.register(mesh::registration()).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    assert_eq!(others.with(|state| state.users.len()), 1);
}

#[tokio::test]
async fn a_half_made_account_survives_its_process_and_keeps_its_id() {
    let data = crate::data();
    let others = Others::default();
    let outbound = others.listen().await;
    let (auth, mut client) = mesh::start(&data, "v1", &outbound).await;
    // The profile is made, but auth never hears of it.
    others.with(|state| state.users_mute = true);
    client.register(mesh::registration()).await.unwrap_err();
    drop(auth);

    others.with(|state| state.users_mute = false);
    let (_auth, mut client) = mesh::start(&data, "v1", &outbound).await;
    let tokens = mesh::register(&mut client).await;
    let ids = others.with(|state| state.users.keys().cloned().collect::<Vec<_>>());
    assert_eq!(ids, [tokens.user_id], "no profile is left without an account");
}

#[tokio::test]
async fn of_many_who_register_one_email_at_once_one_gets_it() {
    let data = crate::data();
    let others = Others::default();
    let outbound = others.listen().await;
    let (_one, client_one) = mesh::start(&data, "v1", &outbound).await;
    let (_two, client_two) = mesh::start(&data, "v2", &outbound).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..10 {
        let mut client = if n % 2 == 0 { client_one.clone() } else { client_two.clone() };
        let mut request = mesh::registration();
        request.password = format!("password {n}");
        tasks.spawn(async move { client.register(request).await.map(|_| n) });
    }
    let ends = tasks.join_all().await;
    let won: Vec<_> = ends.iter().filter_map(|end| end.as_ref().ok()).collect();
    assert_eq!(won.len(), 1, "{ends:?}");
    let refused = ends.iter().filter_map(|end| end.as_ref().err());
    assert!(refused.map(tonic::Status::code).all(|code| code == Code::AlreadyExists));
    // And it is the winner's password that counts.
    let password = format!("password {}", won[0]);
    mesh::login(&mut client_one.clone(), &password).await.unwrap();
}

#[tokio::test]
async fn a_welcome_outlives_both_services_that_it_needs() {
    let data = crate::data();
    let others = Others::default();
    let outbound = others.listen().await;
    others.with(|state| state.notifications_down = true);
    let (auth, mut client) = mesh::start(&data, "v1", &outbound).await;
    let tokens = mesh::register(&mut client).await;
    mesh::eventually("a first attempt", || others.with(|state| state.traces.len() >= 2)).await;
    // It is written down that it failed before the process is gone.
    auth.stop().await.unwrap();

    others.with(|state| state.notifications_down = false);
    let (_auth, _client) = mesh::start(&data, "v1", &outbound).await;
    mesh::eventually("the welcome", || others.with(|state| !state.welcomes.is_empty())).await;
    others.with(|state| {
        assert_eq!(state.welcomes[0].user_id, tokens.user_id);
        assert_eq!(state.welcomes[0].idempotency_key, format!("welcome:{}", tokens.user_id));
    });
}

#[tokio::test]
async fn a_refusal_names_every_wrong_field_and_no_password() {
    let data = crate::data();
    let (_auth, mut client) = mesh::start(&data, "v1", "http://127.0.0.1:1").await;
    let wrong = pb::RegisterRequest {
        email: "ada".into(),
        password: "hunter2".into(),
        display_name: "a\nb".into(),
    };
    let status = client.register(wrong).await.unwrap_err();
    assert_eq!(mesh::fields(&status), ["email", "password", "displayName"]);
    assert!(!format!("{status:?}").contains("hunter2"));
    let status = client.register(pb::RegisterRequest::default()).await.unwrap_err();
    assert_eq!(mesh::fields(&status), ["email", "password"]);
    let status = client.login(pb::LoginRequest::default()).await.unwrap_err();
    assert_eq!(mesh::fields(&status), ["email", "password"]);
    let status = mesh::refresh(&mut client, "").await.unwrap_err();
    assert_eq!(mesh::fields(&status), ["refreshToken"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_deliver_each_welcome_once() {
    const ALL: usize = 200;
    let data = crate::data();
    let others = Others::default();
    let outbound = others.listen().await;
    let _replicas = tokio::join!(
        mesh::start(&data, "v1", &outbound),
        mesh::start(&data, "v1", &outbound),
        mesh::start(&data, "v2", &outbound),
    );
    // As one change, so that all of them find all of it.
    let database = mesh::database(&data).await;
    let mut transaction = database.begin().await.unwrap();
    for n in 0..ALL {
        let add = Query::new(
            "INSERT INTO outbox (idempotency_key, user_id, display_name, attempts, due_at)
             VALUES ($1, $2, 'Ada', 0, 0)",
        );
        let add = add.bind(format!("welcome:{n}")).bind(format!("user-{n}"));
        transaction.run(add).await.unwrap();
    }
    transaction.commit().await.unwrap();

    mesh::until(&data, "SELECT count(*) FROM outbox", 0).await;
    let mut keys: Vec<_> =
        others.with(|state| state.welcomes.iter().map(|w| w.idempotency_key.clone()).collect());
    keys.sort();
    assert_eq!(keys.len(), ALL, "{keys:?}");
    keys.dedup();
    assert_eq!(keys.len(), ALL);
}
