//! Several processes on one database.

use std::collections::HashSet;
use std::time::Duration;

use tonic::Code;
use weir_proto::weir::notifications::v1::*;

use crate::fixture::{Fixture, as_peer, draft, eventually};
use crate::receiver::Receiver;

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_share_a_queue_send_each_webhook_once() {
    let fixture = Fixture::new().await;
    let receiver = Receiver::start(|_, _| 200).await;
    let (_one, first) = fixture.serve("v1", |_| ()).await;
    let (_two, second) = fixture.serve("v2", |_| ()).await;
    let (_three, third) = fixture.serve("v2", |_| ()).await;
    let hook = EnqueueRequest { webhook_url: receiver.url("/"), ..draft("ada") };
    for i in 0..150 {
        let mut client = [&first, &second, &third][i % 3].clone();
        client.enqueue(as_peer("auth", hook.clone())).await.unwrap();
    }
    let store = fixture.store().await;
    eventually("the queue is empty", async || store.next_due().await.unwrap().is_none()).await;
    let ids: Vec<_> =
        receiver.received().iter().map(|r| r.header("webhook-id").to_owned()).collect();
    assert_eq!((ids.len(), ids.iter().collect::<HashSet<_>>().len()), (150, 150));
}

/// Watchers read on from the last that they have seen: one that is committed late
/// must not have an earlier place.
#[tokio::test(flavor = "multi_thread")]
async fn what_replicas_take_at_once_is_seen_whole_and_each_key_counts_once() {
    const EACH: usize = 60;
    let fixture = Fixture::new().await;
    let replicas = tokio::join!(
        fixture.serve("v1", |_| ()),
        fixture.serve("v1", |_| ()),
        fixture.serve("v2", |_| ()),
    );
    let clients = [&replicas.0.1, &replicas.1.1, &replicas.2.1];
    let watch = fixture.auth.request("ada", WatchNotificationsRequest { after: String::new() });
    let mut stream = clients[0].clone().watch_notifications(watch).await.unwrap().into_inner();
    let writers: Vec<_> = (0..12)
        .map(|writer| {
            let mut client = clients[writer % 3].clone();
            tokio::spawn(async move {
                let mut ids = HashSet::new();
                for n in 0..EACH {
                    // Each key is used by four writers at once.
                    let idempotency_key = format!("key-{}-{n}", writer / 4);
                    let keyed = EnqueueRequest { idempotency_key, ..draft("ada") };
                    let answer = client.enqueue(as_peer("auth", keyed)).await.unwrap().into_inner();
                    ids.insert(answer.notification.unwrap().notification_id);
                }
                ids
            })
        })
        .collect();
    let mut sent = HashSet::new();
    for writer in writers {
        sent.extend(writer.await.unwrap());
    }
    assert_eq!(sent.len(), 3 * EACH);
    let mut seen = HashSet::new();
    while seen.len() < sent.len() {
        let next = tokio::time::timeout(Duration::from_secs(30), stream.message()).await;
        let next = next.unwrap_or_else(|_| panic!("{} of {} came", seen.len(), sent.len()));
        assert!(seen.insert(next.unwrap().unwrap().notification_id), "it came twice");
    }
    assert_eq!(seen, sent);
}

#[tokio::test]
async fn watchers_see_what_any_process_takes() {
    let fixture = Fixture::new().await;
    let (_one, mut v1) = fixture.serve("v1", |_| ()).await;
    let (two, mut v2) = fixture.serve("v2", |_| ()).await;
    v1.enqueue(as_peer("auth", draft("ada"))).await.unwrap();
    let watch = |after: &str| {
        fixture.auth.request("ada", WatchNotificationsRequest { after: after.into() })
    };
    let mut stream = v2.watch_notifications(watch("")).await.unwrap().into_inner();

    v2.enqueue(as_peer("auth", draft("bob"))).await.unwrap();
    let mut sent = Vec::new();
    for mut client in [v1.clone(), v2.clone(), v1.clone()] {
        let answer = client.enqueue(as_peer("auth", draft("ada"))).await.unwrap().into_inner();
        sent.push(answer.notification.unwrap().notification_id);
    }
    for id in &sent {
        assert_eq!(&stream.message().await.unwrap().unwrap().notification_id, id);
    }
    let mut rest = v1.watch_notifications(watch(&sent[1])).await.unwrap().into_inner();
    assert_eq!(rest.message().await.unwrap().unwrap().notification_id, sent[2]);

    // Sooner than by looking again in case something was missed.
    let last = v1.enqueue(as_peer("auth", draft("ada"))).await.unwrap().into_inner();
    let seen = tokio::time::timeout(Duration::from_secs(10), stream.message()).await.unwrap();
    let (seen, last) = (seen.unwrap().unwrap(), last.notification.unwrap());
    assert_eq!(seen.notification_id, last.notification_id);

    let stopped = tokio::spawn(two.stop());
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
    stopped.await.unwrap().unwrap();
}
