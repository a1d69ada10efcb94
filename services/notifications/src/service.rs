//! The gRPC service: wire in, one call of the store, wire out.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::{Stream, stream};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};
use weir_mesh::jwt::Verifier;
use weir_mesh::model::Invalid;
use weir_mesh::server::database::Changes;
use weir_mesh::server::{BadRequest, Call, error_info, peer};
use weir_proto::weir::notifications::v1 as pb;
use weir_proto::weir::notifications::v1::notifications_service_server::NotificationsService;

use crate::notification::UserId;
use crate::page::{Cursor, List};
use crate::store::{Store, StoreError};
use crate::wire::{self, Enqueue, Page};
use crate::worker::Worker;

/// Services that may send notifications.
const SENDERS: [&str; 4] = ["auth", "users", "products", "notifications"];
/// Where a page ends even when fewer items are on it than were asked for: most
/// gRPC clients take messages of at most 4 MiB.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Notifications that a watcher's stream reads at once.
const BATCH: u32 = 100;
const DOMAIN: &str = "weir-notifications";

/// What differs between processes of the service.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behaviour {
    /// Version v2: `priority` and `snippet`.
    pub v2: bool,
    /// Lets anybody enqueue, for tests.
    pub any_peer: bool,
    /// Accepts webhooks to loopback, private and other special addresses.
    pub private_webhooks: bool,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Notifications {
    store: Store,
    verifier: Verifier,
    worker: Worker,
    changes: Changes,
    behaviour: Behaviour,
}

impl Notifications {
    /// A service on `store` that wakes `worker` and `changes` for what comes.
    #[must_use]
    pub fn new(
        store: Store,
        verifier: Verifier,
        worker: Worker,
        changes: Changes,
        behaviour: Behaviour,
    ) -> Self {
        Self { store, verifier, worker, changes, behaviour }
    }

    async fn user(&self, metadata: &MetadataMap) -> Result<UserId, Status> {
        let claims = self.verifier.user(metadata).await?;
        UserId::try_from(claims.sub)
            .map_err(|_| Status::unauthenticated("the access token's subject is no user's id"))
    }

    /// The service that calls.
    #[allow(clippy::result_large_err)]
    fn sender(&self, metadata: &MetadataMap) -> Result<&'static str, Status> {
        let peer = peer(metadata);
        let known = peer.as_ref().and_then(|id| SENDERS.into_iter().find(|s| *s == id.service()));
        match (known, peer) {
            (Some(sender), _) => Ok(sender),
            (None, _) if self.behaviour.any_peer => Ok("anybody"),
            (None, Some(id)) => Err(refused(format!("{id} may not send notifications"))),
            (None, None) => Err(refused("only services of the mesh send notifications".to_owned())),
        }
    }

    fn notification(&self, from: crate::notification::Notification) -> pb::Notification {
        wire::notification(from, self.behaviour.v2)
    }
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::Notification, Status>> + Send>>;

#[tonic::async_trait]
impl NotificationsService for Notifications {
    async fn enqueue(
        &self,
        request: Request<pb::EnqueueRequest>,
    ) -> Result<Response<pb::EnqueueResponse>, Status> {
        let sender = self.sender(request.metadata())?;
        let Enqueue { draft, key } =
            Enqueue::read(request.into_inner(), self.behaviour.private_webhooks)
                .map_err(invalid)?;
        let notification =
            self.store.enqueue(&draft, sender, key.as_ref()).await.map_err(failed)?;
        self.changes.note();
        if draft.webhook.is_some() {
            self.worker.wake();
        }
        let notification = Some(self.notification(notification));
        Ok(Response::new(pb::EnqueueResponse { notification }))
    }

    async fn list_notifications(
        &self,
        request: Request<pb::ListNotificationsRequest>,
    ) -> Result<Response<pb::ListNotificationsResponse>, Status> {
        let user = self.user(request.metadata()).await?;
        let request = request.into_inner();
        let list = if request.unread_only { List::Unread } else { List::All };
        let page = Page::read(request.page_size, &request.page_token, list).map_err(invalid)?;
        let before = page.after.as_ref().map(|cursor| cursor.sequence);
        // One more than fits tells whether another page follows.
        let found = self.store.list(&user, before, request.unread_only, page.size + 1);
        let found = found.await.map_err(failed)?;
        let (notifications, next_page_token) = cut(found, &page, |from| {
            (Cursor::new(list, from.sequence, 0), self.notification(from))
        });
        Ok(Response::new(pb::ListNotificationsResponse { notifications, next_page_token }))
    }

    async fn mark_read(
        &self,
        request: Request<pb::MarkReadRequest>,
    ) -> Result<Response<pb::Notification>, Status> {
        let user = self.user(request.metadata()).await?;
        let id = wire::id(&request.get_ref().notification_id, "notificationId").map_err(invalid)?;
        let notification = self.store.mark_read(&user, id).await.map_err(failed)?;
        Ok(Response::new(self.notification(notification)))
    }

    async fn mark_all_read(
        &self,
        request: Request<pb::MarkAllReadRequest>,
    ) -> Result<Response<pb::MarkAllReadResponse>, Status> {
        let user = self.user(request.metadata()).await?;
        let marked = self.store.mark_all_read(&user).await.map_err(failed)?;
        let marked = u32::try_from(marked).unwrap_or(u32::MAX);
        Ok(Response::new(pb::MarkAllReadResponse { marked }))
    }

    async fn get_unread_count(
        &self,
        request: Request<pb::GetUnreadCountRequest>,
    ) -> Result<Response<pb::GetUnreadCountResponse>, Status> {
        let user = self.user(request.metadata()).await?;
        let unread = self.store.unread(&user).await.map_err(failed)?;
        Ok(Response::new(pb::GetUnreadCountResponse { unread }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        let user = self.user(request.metadata()).await?;
        let request = request.into_inner();
        let page =
            Page::read(request.page_size, &request.page_token, List::Dead).map_err(invalid)?;
        let before = page.after.as_ref().map(|cursor| (cursor.time, cursor.sequence));
        let found = self.store.dead_letters(&user, before, page.size + 1).await.map_err(failed)?;
        let (dead_letters, next_page_token) = cut(found, &page, |from| {
            let cursor = Cursor::new(List::Dead, from.notification.sequence, from.dead_time);
            (cursor, wire::dead_letter(from, self.behaviour.v2))
        });
        Ok(Response::new(pb::ListDeadLettersResponse { dead_letters, next_page_token }))
    }

    type WatchNotificationsStream = WatchStream;

    async fn watch_notifications(
        &self,
        request: Request<pb::WatchNotificationsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let user = self.user(request.metadata()).await?;
        let after = match request.get_ref().after.as_str() {
            "" => self.store.newest().await.map_err(failed)?,
            after => {
                let id = wire::id(after, "after").map_err(invalid)?;
                self.store.get(&user, id).await.map_err(failed)?.sequence
            }
        };
        Ok(Response::new(self.watch(user, after)))
    }
}

impl Notifications {
    fn watch(&self, user: UserId, after: i64) -> WatchStream {
        let service = self.clone();
        let changes = self.changes.subscribe();
        let call = Call::current();
        let draining = Box::pin(async move {
            match call {
                Some(call) => call.draining().await,
                None => std::future::pending().await,
            }
        });
        let state = (changes, draining, after, VecDeque::new());
        Box::pin(stream::try_unfold(
            state,
            move |(mut changes, mut draining, mut after, mut ready)| {
                let (service, user) = (service.clone(), user.clone());
                async move {
                    loop {
                        if let Some(next) = ready.pop_front() {
                            return Ok(Some((next, (changes, draining, after, ready))));
                        }
                        // Seen before reading, so that nothing comes unseen between.
                        changes.mark_unchanged();
                        let found =
                            service.store.since(&user, after, BATCH).await.map_err(failed)?;
                        if let Some(last) = found.last() {
                            after = last.sequence;
                            ready.extend(found.into_iter().map(|from| service.notification(from)));
                            continue;
                        }
                        tokio::select! {
                            biased;
                            () = &mut draining => {
                                let goodbye = "the instance is stopping: watch again with `after`";
                                return Err(Status::unavailable(goodbye));
                            }
                            changed = changes.changed() => if changed.is_err() { return Ok(None) },
                        }
                    }
                }
            },
        ))
    }
}

/// As many as fit on a page, and the token of the next, if there is one.
fn cut<T, M: prost::Message>(
    found: Vec<T>,
    page: &Page,
    mut wire: impl FnMut(T) -> (Cursor, M),
) -> (Vec<M>, String) {
    let all = found.len();
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    for from in found.into_iter().take(page.size as usize) {
        let (cursor, item) = wire(from);
        bytes += item.encoded_len();
        if bytes > MAX_PAGE_BYTES && last.is_some() {
            break;
        }
        last = Some(cursor);
        items.push(item);
    }
    let more = items.len() < all;
    let token = last.filter(|_| more).map(|cursor| cursor.token()).unwrap_or_default();
    (items, token)
}

fn refused(message: String) -> Status {
    error_info(Code::PermissionDenied, message, "NOT_A_SENDER", DOMAIN)
}

fn invalid(invalid: Invalid) -> Status {
    let mut bad = BadRequest::new();
    for violation in invalid.0 {
        bad.field(violation.field, violation.description);
    }
    bad.into()
}

fn failed(error: StoreError) -> Status {
    match &error {
        StoreError::NotFound(_) => {
            error_info(Code::NotFound, error.to_string(), "NOTIFICATION_NOT_FOUND", DOMAIN)
        }
        StoreError::KeyReused => {
            error_info(Code::AlreadyExists, error.to_string(), "IDEMPOTENCY_KEY_REUSED", DOMAIN)
        }
        StoreError::QueueFull => {
            error_info(Code::ResourceExhausted, error.to_string(), "QUEUE_FULL", DOMAIN)
        }
        StoreError::Busy => Status::unavailable("the database is busy: try again"),
        StoreError::Database(_) => {
            // The caller could do nothing about it; whoever runs the service can.
            tracing::error!(%error, "a call failed");
            Status::internal("the database of notifications failed; the service's log says why")
        }
    }
}
