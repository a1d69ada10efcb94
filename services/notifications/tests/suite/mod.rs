//! What holds on every database.

mod replicas;

use std::collections::HashSet;
use std::time::Duration;

use tonic::Code;
use weir_proto::weir::notifications::v1::*;

use crate::fixture::{self, Fixture, as_peer, draft, eventually, wrong_fields};
use crate::receiver::Receiver;
use crate::support;

#[tokio::test]
async fn only_services_of_the_mesh_enqueue() {
    let fixture = Fixture::new().await;
    let (_running, mut client) =
        fixture.serve("v1", |args| args.insecure_allow_any_peer = false).await;
    for sender in ["auth", "users", "products", "notifications"] {
        client.enqueue(as_peer(sender, draft("ada"))).await.unwrap();
    }
    let nobody = client.enqueue(draft("ada")).await.unwrap_err();
    let gateway = client.enqueue(as_peer("gateway", draft("ada"))).await.unwrap_err();
    assert_eq!((nobody.code(), gateway.code()), (Code::PermissionDenied, Code::PermissionDenied));
    let (_open, mut client) = fixture.serve("v1", |args| args.insecure_allow_any_peer = true).await;
    client.enqueue(draft("ada")).await.unwrap();
}

#[tokio::test]
async fn an_inbox_is_its_owner_s_alone() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", |_| ()).await;
    let mut sent = Vec::new();
    for user in ["ada", "bob", "ada"] {
        let answer = client.enqueue(as_peer("auth", draft(user))).await.unwrap().into_inner();
        sent.push(answer.notification.unwrap());
    }
    let list = ListNotificationsRequest::default();
    assert_eq!(
        client.list_notifications(list.clone()).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let inbox =
        client.list_notifications(fixture.auth.request("ada", list)).await.unwrap().into_inner();
    assert_eq!(inbox.notifications, [sent[2].clone(), sent[0].clone()], "newest first");

    let read = |n: usize| MarkReadRequest { notification_id: sent[n].notification_id.clone() };
    let other = client.mark_read(fixture.auth.request("ada", read(1))).await.unwrap_err();
    assert_eq!(other.code(), Code::NotFound);
    let once = client.mark_read(fixture.auth.request("ada", read(0))).await.unwrap().into_inner();
    assert!(once.read_time.is_some());
    let twice = client.mark_read(fixture.auth.request("ada", read(0))).await.unwrap().into_inner();
    assert_eq!(once, twice);

    let count = fixture.auth.request("ada", GetUnreadCountRequest {});
    assert_eq!(client.get_unread_count(count).await.unwrap().into_inner().unread, 1);
    let unread = ListNotificationsRequest { unread_only: true, ..Default::default() };
    let unread = client.list_notifications(fixture.auth.request("ada", unread)).await.unwrap();
    assert_eq!(unread.into_inner().notifications, [sent[2].clone()]);
    let all =
        client.mark_all_read(fixture.auth.request("ada", MarkAllReadRequest {})).await.unwrap();
    assert_eq!(all.into_inner().marked, 1);
    let bob = fixture.auth.request("bob", GetUnreadCountRequest {});
    assert_eq!(client.get_unread_count(bob).await.unwrap().into_inner().unread, 1);
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", |_| ()).await;
    let wrong = EnqueueRequest {
        user_id: String::new(),
        kind: "Not A Kind".into(),
        title: "two\nlines".into(),
        body: "x".repeat(8001),
        idempotency_key: "\u{e9}".into(),
        webhook_url: "https://example.com/".into(),
    };
    let status = client.enqueue(as_peer("auth", wrong)).await.unwrap_err();
    let expected = ["userId", "kind", "title", "body", "idempotencyKey", "webhookUrl"];
    assert_eq!(wrong_fields(&status), expected);
    assert!(status.message().contains("https is not supported yet"));

    let list =
        ListNotificationsRequest { page_size: 1001, page_token: "x".into(), unread_only: false };
    let status = client.list_notifications(fixture.auth.request("ada", list)).await.unwrap_err();
    assert_eq!(wrong_fields(&status), ["pageSize", "pageToken"]);
    let read = MarkReadRequest { notification_id: "x".into() };
    let status = client.mark_read(fixture.auth.request("ada", read)).await.unwrap_err();
    assert_eq!(wrong_fields(&status), ["notificationId"]);
}

#[tokio::test]
async fn pages_lose_and_repeat_nothing_while_notifications_come() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", |_| ()).await;
    let mut before = HashSet::new();
    for _ in 0..25 {
        let answer = client.enqueue(as_peer("auth", draft("ada"))).await.unwrap().into_inner();
        before.insert(answer.notification.unwrap().notification_id);
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let list = ListNotificationsRequest { page_size: 4, page_token, unread_only: true };
        let page = client
            .list_notifications(fixture.auth.request("ada", list))
            .await
            .unwrap()
            .into_inner();
        seen.extend(page.notifications.into_iter().map(|n| n.notification_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        client.enqueue(as_peer("auth", draft("ada"))).await.unwrap();
    }
    let ids: HashSet<_> = seen.iter().cloned().collect();
    assert_eq!((ids.len(), &ids), (seen.len(), &before));
}

#[tokio::test]
async fn v2_adds_a_priority_and_a_snippet() {
    let fixture = Fixture::new().await;
    let (_one, mut v1) = fixture.serve("v1", |_| ()).await;
    let (_two, mut v2) = fixture.serve("v2", |_| ()).await;
    let body = format!("First line.\n{}", "word ".repeat(40));
    let urgent = EnqueueRequest { kind: "security.login".into(), body, ..draft("ada") };
    let sent =
        v1.enqueue(as_peer("auth", urgent)).await.unwrap().into_inner().notification.unwrap();
    assert_eq!((sent.priority, sent.snippet.clone()), (None, None));
    let list = || fixture.auth.request("ada", ListNotificationsRequest::default());
    let seen = v2.list_notifications(list()).await.unwrap().into_inner().notifications.remove(0);
    assert_eq!(seen.priority(), Priority::High);
    assert!(seen.snippet().starts_with("First line. word word"));
    let plain = Notification { priority: None, snippet: None, ..seen };
    assert_eq!(plain, sent, "v2 changes nothing else");
}

#[tokio::test]
async fn a_key_makes_a_repeated_request_the_same_request() {
    let fixture = Fixture::new().await;
    let receiver = Receiver::start(|_, _| 200).await;
    let (_running, mut client) = fixture.serve("v1", |_| ()).await;
    let keyed = EnqueueRequest {
        idempotency_key: "register-1".into(),
        webhook_url: receiver.url("/hook"),
        ..draft("ada")
    };
    let first = client.enqueue(as_peer("auth", keyed.clone())).await.unwrap().into_inner();
    eventually("it arrives", async || receiver.received().len() == 1).await;
    let again = client.enqueue(as_peer("auth", keyed.clone())).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = EnqueueRequest { title: "Other".into(), ..keyed.clone() };
    let other = client.enqueue(as_peer("auth", other)).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    let users = client.enqueue(as_peer("users", keyed)).await.unwrap().into_inner();
    assert_ne!(first, users, "keys are each sender's own");
    eventually("just the second sender's arrives", async || receiver.received().len() == 2).await;
}

#[tokio::test]
async fn a_webhook_is_retried_until_it_arrives_and_proves_its_origin() {
    let fixture = Fixture::new().await;
    let receiver = Receiver::start(|_, nth| if nth < 3 { 503 } else { 204 }).await;
    let (_running, mut client) = fixture.serve("v1", |_| ()).await;
    let hook = EnqueueRequest { webhook_url: receiver.url("/hook?token=s3"), ..draft("ada") };
    let sent =
        client.enqueue(as_peer("auth", hook)).await.unwrap().into_inner().notification.unwrap();

    eventually("the third attempt", async || receiver.received().len() == 3).await;
    let key = fixture.webhook_key().await;
    for request in receiver.received() {
        assert_eq!(request.path, "/hook?token=s3");
        assert_eq!(request.header("webhook-id"), sent.notification_id);
        assert_eq!(request.header("idempotency-key"), sent.notification_id);
        assert!(request.is_signed_by(&key), "{request:?}");
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["type"], "welcome");
        assert_eq!(body["data"]["userId"], "ada");
    }
    let store = fixture.store().await;
    eventually("the queue is empty", async || store.next_due().await.unwrap().is_none()).await;
    let dead = fixture.auth.request("ada", ListDeadLettersRequest::default());
    assert!(client.list_dead_letters(dead).await.unwrap().into_inner().dead_letters.is_empty());
}

#[tokio::test]
async fn webhooks_that_cannot_arrive_become_dead_letters() {
    let fixture = Fixture::new().await;
    let receiver = Receiver::start(|path, _| if path == "/gone" { 410 } else { 302 }).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_running, mut client) = fixture
        .serve("v1", |args| {
            args.webhook_attempts = 3;
            args.webhook_timeout = Duration::from_millis(100);
        })
        .await;
    let silent_url = format!("http://{}/silent", silent.local_addr().unwrap());
    for url in [receiver.url("/gone"), receiver.url("/moved?secret=1"), silent_url] {
        let hook = EnqueueRequest { webhook_url: url, ..draft("ada") };
        client.enqueue(as_peer("auth", hook)).await.unwrap();
    }
    let mut letters = Vec::new();
    eventually("all are given up", async || {
        let list = fixture.auth.request("ada", ListDeadLettersRequest::default());
        letters = client.clone().list_dead_letters(list).await.unwrap().into_inner().dead_letters;
        letters.len() == 3
    })
    .await;
    letters.sort_by_key(|letter| {
        letter.notification.as_ref().unwrap().create_time.unwrap().to_string()
    });
    let [gone, moved, silent] = &letters[..] else { unreachable!() };
    assert_eq!((gone.attempts, moved.attempts, silent.attempts), (1, 3, 3));
    assert!(gone.last_error.contains("410"), "{}", gone.last_error);
    assert!(moved.last_error.contains("302"), "{}", moved.last_error);
    assert!(silent.last_error.contains("no answer within 100ms"), "{}", silent.last_error);
    assert!(moved.webhook_url.ends_with("/moved"), "{}", moved.webhook_url);
    let bob = fixture.auth.request("bob", ListDeadLettersRequest::default());
    assert!(client.list_dead_letters(bob).await.unwrap().into_inner().dead_letters.is_empty());
}

/// Also that it waits no longer than `--drain-timeout`.
#[tokio::test]
async fn stopping_waits_for_webhooks_in_flight() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let fixture = Fixture::new().await;
    let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook_url = format!("http://{}/", slow.local_addr().unwrap());
    let hook =
        || as_peer("auth", EnqueueRequest { webhook_url: webhook_url.clone(), ..draft("ada") });
    for answered in [true, false] {
        let (running, mut client) = fixture
            .serve("v1", |args| args.common.drain_timeout = if answered { 30 } else { 1 })
            .await;
        let address = running.address();
        client.enqueue(hook()).await.unwrap();
        let (mut attempt, _) = slow.accept().await.unwrap();
        attempt.read_exact(&mut [0; 4]).await.unwrap();

        let mut stopped = tokio::spawn(running.stop());
        eventually("it serves no more", async || {
            tokio::net::TcpStream::connect(address).await.is_err()
        })
        .await;
        let early = tokio::time::timeout(Duration::from_millis(300), &mut stopped).await;
        assert!(early.is_err(), "it ended before its webhook");
        if answered {
            attempt.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
        // An attempt may take 5 seconds here.
        tokio::time::timeout(Duration::from_secs(4), stopped).await.unwrap().unwrap().unwrap();
        let store = fixture.store().await;
        assert_eq!(store.next_due().await.unwrap().is_none(), answered);
    }
}

#[tokio::test]
async fn what_it_stores_is_its_owner_s_alone_to_read() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", |_| ()).await;
    client.enqueue(as_peer("auth", draft("ada"))).await.unwrap();
    if fixture.data.url().is_none() {
        support::assert_private(fixture.data.directory(), "notifications.db");
    }
}

#[tokio::test]
async fn webhooks_reach_no_private_address_by_default() {
    let fixture = Fixture::new().await;
    let receiver = Receiver::start(|_, _| 200).await;
    let (_running, mut client) =
        fixture.serve("v1", |args| args.allow_private_webhooks = false).await;
    let hook = |host: &str| {
        let webhook_url = format!("http://{host}:{}/", receiver.address().port());
        as_peer("auth", EnqueueRequest { webhook_url, ..draft("ada") })
    };
    for host in ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254"] {
        let status = client.enqueue(hook(host)).await.unwrap_err();
        assert_eq!(wrong_fields(&status), ["webhookUrl"], "{host}");
    }
    // Loopback in disguise: no address by its looks, one by resolution.
    client.enqueue(hook("2130706433")).await.unwrap();
    eventually("it is given up", async || {
        let list = fixture.auth.request("ada", ListDeadLettersRequest::default());
        let letters =
            client.clone().list_dead_letters(list).await.unwrap().into_inner().dead_letters;
        letters.first().is_some_and(|letter| letter.last_error.contains("no public address"))
    })
    .await;
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_lease_keeps_others_off_until_it_ends_and_then_counts_no_more() {
    let fixture = Fixture::new().await;
    let store = fixture.store().await;
    let draft = weir_notifications::notification::Draft {
        user: "ada".to_owned().try_into().unwrap(),
        kind: "welcome".to_owned().try_into().unwrap(),
        title: "Hello".to_owned().try_into().unwrap(),
        body: String::new().try_into().unwrap(),
        webhook: Some("http://example.com/".try_into().unwrap()),
    };
    store.enqueue(&draft, "auth", None).await.unwrap();
    let dead = store.take(10, Duration::from_millis(200)).await.unwrap().remove(0);
    assert!(store.take(10, Duration::from_secs(9)).await.unwrap().is_empty());

    let mut again = Vec::new();
    eventually("it comes back", async || {
        again = store.take(10, Duration::from_secs(9)).await.unwrap();
        !again.is_empty()
    })
    .await;
    assert_eq!(again[0].attempt, 2);
    assert!(!store.done(&dead).await.unwrap(), "the old lease counts no more");
    assert!(!store.retry(&dead, Duration::ZERO, "late").await.unwrap());
    assert!(store.done(&again[0]).await.unwrap());
    assert!(store.next_due().await.unwrap().is_none());
}

/// What a killed process had acknowledged is in the inbox and arrives.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let fixture = Fixture::new().await;
    let receiver = Receiver::start(|_, _| 200).await;
    let mut child = fixture.spawn_process();
    let client = fixture.connect_to_process(&mut child).await;

    let url = receiver.url("/");
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, webhook_url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                loop {
                    let hook = EnqueueRequest { webhook_url: webhook_url.clone(), ..draft("ada") };
                    match client.enqueue(as_peer("auth", hook)).await {
                        Ok(answer) => {
                            let notification = answer.into_inner().notification.unwrap();
                            acknowledged.push(notification.notification_id);
                        }
                        Err(_) => return acknowledged,
                    }
                }
            })
        })
        .collect();
    eventually("it is at work", async || receiver.received().len() > 20).await;
    child.start_kill().unwrap();
    child.wait().await.unwrap();
    let mut acknowledged = HashSet::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(acknowledged.len() > 20);

    let (_running, mut client) = fixture.serve("v1", |_| ()).await;
    let (mut inbox, mut page_token) = (HashSet::new(), String::new());
    loop {
        let list = ListNotificationsRequest { page_size: 1000, page_token, unread_only: false };
        let page = client
            .list_notifications(fixture.auth.request("ada", list))
            .await
            .unwrap()
            .into_inner();
        inbox.extend(page.notifications.into_iter().map(|n| n.notification_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(acknowledged.is_subset(&inbox));
    eventually("all arrive", async || {
        let arrived: HashSet<_> =
            receiver.received().iter().map(|r| r.header("webhook-id").to_owned()).collect();
        acknowledged.is_subset(&arrived)
    })
    .await;
}

/// Not a test of its own: the process that the one above kills.
#[test]
#[ignore = "run as a process by what_was_acknowledged_survives_kill_9"]
fn process() {
    fixture::process_main();
}
