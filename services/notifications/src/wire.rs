//! Wire to domain, and back. Nothing of protobuf goes further in than here.

use prost_types::Timestamp;
use weir_mesh::model::{Invalid, Violations};
use weir_proto::weir::notifications::v1 as pb;

use crate::notification::{
    DeadLetter, Draft, IdempotencyKey, Notification, NotificationId, Priority, UserId,
};
use crate::page::{Cursor, List, page_size};
use crate::webhook::WebhookUrl;

/// A notification that is to be sent.
pub(crate) struct Enqueue {
    pub(crate) draft: Draft,
    pub(crate) key: Option<IdempotencyKey>,
}

impl Enqueue {
    /// Reads a request; with `private`, webhooks may go to special addresses.
    pub(crate) fn read(wire: pb::EnqueueRequest, private: bool) -> Result<Self, Invalid> {
        let mut bad = Violations::new();
        let user = bad.take("userId", UserId::try_from(wire.user_id));
        let kind = bad.take("kind", wire.kind.try_into());
        let title = bad.take("title", wire.title.try_into());
        let body = bad.take("body", wire.body.try_into());
        let key = match wire.idempotency_key {
            key if key.is_empty() => Some(None),
            key => bad.take("idempotencyKey", key.try_into()).map(Some),
        };
        let webhook = match wire.webhook_url.as_str() {
            "" => Some(None),
            url => {
                let url = WebhookUrl::try_from(url).and_then(|url| {
                    if private { Ok(url) } else { url.check_public().map(|()| url) }
                });
                bad.take("webhookUrl", url).map(Some)
            }
        };
        let enqueue = (|| {
            let draft =
                Draft { user: user?, kind: kind?, title: title?, body: body?, webhook: webhook? };
            Some(Self { draft, key: key? })
        })();
        bad.finish(enqueue)
    }
}

/// One page that is asked for.
pub(crate) struct Page {
    pub(crate) after: Option<Cursor>,
    pub(crate) size: u32,
}

impl Page {
    /// Reads the fields that all lists share.
    pub(crate) fn read(size: u32, token: &str, list: List) -> Result<Self, Invalid> {
        let mut bad = Violations::new();
        let size = bad.take("pageSize", page_size(size));
        let after = bad.take("pageToken", Cursor::read(token, list));
        bad.finish(size.zip(after).map(|(size, after)| Self { after, size }))
    }
}

/// Reads a notification's id.
pub(crate) fn id(text: &str, path: &str) -> Result<NotificationId, Invalid> {
    NotificationId::try_from(text).map_err(|error| Invalid::one(path, error.to_string()))
}

/// A notification as clients see it; with `v2`, with what came then.
pub(crate) fn notification(from: Notification, v2: bool) -> pb::Notification {
    let Notification { id, draft, create_time, read_time, .. } = from;
    let priority = match draft.kind.priority() {
        Priority::Low => pb::Priority::Low,
        Priority::Normal => pb::Priority::Normal,
        Priority::High => pb::Priority::High,
    };
    pb::Notification {
        notification_id: id.to_string(),
        user_id: draft.user.to_string(),
        kind: draft.kind.to_string(),
        title: draft.title.to_string(),
        priority: v2.then_some(priority as i32),
        snippet: v2.then(|| draft.body.snippet()),
        body: draft.body.to_string(),
        create_time: Some(timestamp(create_time)),
        read_time: read_time.map(timestamp),
    }
}

/// A dead letter as clients see it.
pub(crate) fn dead_letter(from: DeadLetter, v2: bool) -> pb::DeadLetter {
    let DeadLetter { notification: inner, attempts, error, dead_time } = from;
    let url = inner.draft.webhook.as_ref().map(WebhookUrl::without_query);
    pb::DeadLetter {
        notification: Some(notification(inner, v2)),
        webhook_url: url.unwrap_or_default(),
        attempts,
        last_error: error,
        dead_time: Some(timestamp(dead_time)),
    }
}

fn timestamp(micros: i64) -> Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}
