//! Copies of requests to other backends (RequestMirror), or to another version of
//! the service itself (its `mirror`). Nobody waits for them: a copy is sent once
//! the client's body is whole, its answer is thrown away, and whatever happens to it
//! is a counter alone. A version that gets a service's own copies is judged by them,
//! so they count as its requests in what is reported of edges.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Request, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::body::{BodyError, UpBody};
use super::call::{Call, grpc_status, is_server_fault};
use super::forward::{Payload, formed};
use crate::auth;
use crate::table::{Filters, ServiceEntry};
use crate::upstream::{Pending, Pick, pick};
use crate::worker::Worker;

/// A larger body is not copied.
const BODY: usize = 1024 * 1024;
/// Copies of one worker that wait for bodies or answers; further ones are not made.
const IN_FLIGHT: usize = 256;
/// Bytes of all bodies that a worker has copied and not sent.
const BYTES: usize = 16 * 1024 * 1024;
/// A copy and its whole answer.
const TIME: Duration = Duration::from_secs(15);

thread_local! {
    /// A worker is a thread.
    static COPIES: Cell<usize> = const { Cell::new(0) };
    static COPIED: Cell<usize> = const { Cell::new(0) };
}

/// Bytes of [`BYTES`].
#[derive(Default)]
struct Held(usize);

impl Held {
    /// False when there is no room.
    fn add(&mut self, bytes: usize) -> bool {
        COPIED.with(|copied| {
            let all = copied.get() + bytes;
            if all > BYTES {
                return false;
            }
            copied.set(all);
            self.0 += bytes;
            true
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        COPIED.with(|copied| copied.set(copied.get().saturating_sub(self.0)));
    }
}

/// One copy of [`IN_FLIGHT`].
struct Place;

impl Place {
    fn take() -> Option<Self> {
        COPIES.with(|copies| {
            (copies.get() < IN_FLIGHT).then(|| {
                copies.set(copies.get() + 1);
                Self
            })
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        COPIES.with(|copies| copies.set(copies.get().saturating_sub(1)));
    }
}

/// Sends the copies that filters ask for, and those that the service does: `own` is
/// it, and the version that the request itself goes to.
pub fn send(
    worker: &Rc<Worker>,
    filters: [Option<&Filters>; 2],
    own: (&Arc<ServiceEntry>, usize),
    parts: &request::Parts,
    payload: &mut Payload,
    call: &Call,
) {
    let (service, version) = own;
    let none = filters.iter().flatten().all(|filters| filters.mirrors.is_empty());
    if none && service.mirror.is_none() {
        return;
    }
    let mut copies = of_filters(worker, filters);
    copies.extend(of_service(worker, service, version, call.revision()));
    if copies.is_empty() {
        return;
    }
    let mut parts = parts.clone();
    call.inject(&mut parts.headers);
    let (body, held) = (BytesMut::new(), Held::default());
    payload.copy_to(Copying { worker: worker.clone(), parts, copies, body, held });
}

/// The copy of a request to `version` that its service asks for. Whoever stands
/// before the service has let the request through already.
fn of_service(
    worker: &Rc<Worker>,
    service: &Arc<ServiceEntry>,
    version: usize,
    revision: u32,
) -> Option<Copy> {
    let mirror = service.mirror.as_ref().filter(|mirror| mirror.version != version)?;
    if mirror.part.as_ref().is_some_and(|part| worker.next_of(part) != 0) {
        return None;
    }
    let (service, version) = (service.clone(), mirror.version);
    Copy { service, version, judged: Some(revision), _place: None }.admitted(worker)
}

fn of_filters(worker: &Rc<Worker>, filters: [Option<&Filters>; 2]) -> Vec<Copy> {
    let table = worker.table();
    let mut copies = Vec::new();
    for mirror in filters.into_iter().flatten().flat_map(|filters| &filters.mirrors) {
        if mirror.part.as_ref().is_some_and(|part| worker.next_of(part) != 0) {
            continue;
        }
        // Not by the service's own counter, which is for those who wait.
        let version = mirror.version.unwrap_or_else(|| match mirror.service.versions.len() {
            1 => 0,
            _ => mirror.service.splitter.sticky(fastrand::u64(..)),
        });
        let service = mirror.service.clone();
        let copy = Copy { service, version, judged: None, _place: None };
        // Nobody would ask whether this copy may go there.
        if table.as_ref().is_some_and(|t| auth::in_place_of(t, &copy.service).is_some()) {
            copy.count(worker, "denied");
            continue;
        }
        copies.extend(copy.admitted(worker));
    }
    copies
}

/// One copy and where it goes.
struct Copy {
    service: Arc<ServiceEntry>,
    version: usize,
    /// The revision that sends it, when its version is judged by it.
    judged: Option<u32>,
    _place: Option<Place>,
}

impl Copy {
    /// It, if there is room for one more.
    fn admitted(self, worker: &Worker) -> Option<Self> {
        match Place::take() {
            Some(place) => Some(Self { _place: Some(place), ..self }),
            None => {
                self.count(worker, "overflow");
                None
            }
        }
    }

    fn count(&self, worker: &Worker, outcome: &str) {
        let version = &self.service.versions[self.version].name;
        let labels = [
            ("weir_service", self.service.name.as_str()),
            ("weir_version", version.as_str()),
            ("outcome", outcome),
        ];
        let help = "Copies of requests that mirrors ask for, by what became of them.";
        worker
            .shared
            .metrics
            .registry()
            .counter("weir.router.mirror.requests", help, "", &labels)
            .inc();
    }

    async fn go(self, worker: &Rc<Worker>, parts: &request::Parts, body: Bytes) {
        let began = Instant::now();
        let sending = timeout(TIME, self.ask(worker, parts, body));
        let outcome = sending.await.unwrap_or(Outcome::Timeout);
        self.count(worker, outcome.name());
        if let Some((revision, failed)) = self.judged.zip(outcome.failed()) {
            let (service, version) = (&*self.service, &self.service.versions[self.version]);
            let edge = (service.name.as_str(), version.name.as_str(), revision);
            let metrics = &worker.shared.metrics;
            worker.bound.borrow_mut().count_edge(metrics, edge, failed, began.elapsed());
        }
    }

    async fn ask(&self, worker: &Rc<Worker>, parts: &request::Parts, body: Bytes) -> Outcome {
        let version = &self.service.versions[self.version];
        let picked = pick(version, &[], |endpoint| worker.upstream(endpoint));
        let (Pick::Good(upstream) | Pick::Panic(upstream)) = picked else {
            return Outcome::NoInstance;
        };
        let body = if body.is_empty() { UpBody::Empty } else { UpBody::Full(Some(body)) };
        let request: Request<UpBody> = formed(parts, body, upstream.reach);
        let _pending = Pending::new(upstream.clone());
        let Ok(sent) = upstream.pool.send(request).await else { return Outcome::Failed };
        let status = sent.response.status();
        let mut grpc = grpc_status(sent.response.headers());
        // Read to its end, so that the connection can be used again.
        let mut answer = sent.response.into_body();
        while let Some(frame) = answer.frame().await {
            match frame {
                Ok(frame) => {
                    grpc = frame.trailers_ref().and_then(grpc_status).or(grpc);
                }
                Err(_) => return Outcome::Failed,
            }
        }
        Outcome::Answered { fault: is_server_fault(status, grpc) }
    }
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered { fault: bool },
    Failed,
    Timeout,
    NoInstance,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Answered { .. } => "answered",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::NoInstance => "no_instance",
        }
    }

    /// Whether it is a failure of the version; none: the version never had it.
    fn failed(self) -> Option<bool> {
        match self {
            Self::Answered { fault } => Some(fault),
            Self::Failed | Self::Timeout => Some(true),
            Self::NoInstance => None,
        }
    }
}

/// Copies that wait for a body.
pub struct Copying {
    worker: Rc<Worker>,
    parts: request::Parts,
    copies: Vec<Copy>,
    body: BytesMut,
    held: Held,
}

impl Copying {
    /// A part of the body. `last` when nothing follows; then, and when it is too
    /// large, `slot` is empty afterwards.
    pub fn frame(slot: &mut Option<Self>, frame: &Frame<Bytes>, last: bool) {
        let Some(copying) = slot else { return };
        if let Some(data) = frame.data_ref() {
            if let Err(outcome) = copying.room(data.len()) {
                copying.give_up(outcome);
                *slot = None;
                return;
            }
            copying.body.extend_from_slice(data);
        }
        if last && let Some(copying) = slot.take() {
            copying.end();
        }
    }

    /// All of the body, at once.
    pub fn whole(mut self, body: Bytes) {
        match self.room(body.len()) {
            Ok(()) => self.go(body),
            Err(outcome) => self.give_up(outcome),
        }
    }

    /// For so many bytes more; else why there is none.
    fn room(&mut self, bytes: usize) -> Result<(), &'static str> {
        if self.held.0 + bytes > BODY {
            return Err("too_large");
        }
        if self.held.add(bytes) { Ok(()) } else { Err("overflow") }
    }

    /// Nothing of the body follows.
    pub fn end(mut self) {
        let body = std::mem::take(&mut self.body).freeze();
        self.go(body);
    }

    fn go(&mut self, body: Bytes) {
        // What is framed otherwise now must not say so.
        self.parts.headers.remove(http::header::TRANSFER_ENCODING);
        let (worker, parts) = (self.worker.clone(), self.parts.clone());
        let copies = std::mem::take(&mut self.copies);
        let held = std::mem::take(&mut self.held);
        tokio::task::spawn_local(async move {
            let _held = held;
            let all = copies.into_iter().map(|copy| copy.go(&worker, &parts, body.clone()));
            futures_util::future::join_all(all).await;
        });
    }

    fn give_up(&mut self, outcome: &str) {
        for copy in self.copies.drain(..) {
            copy.count(&self.worker, outcome);
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        // The client broke off, or nobody read all it sent.
        self.give_up("incomplete");
    }
}

/// A body that is copied on its way.
pub struct Copied {
    body: UpBody,
    copying: Option<Copying>,
}

impl Copied {
    /// Gives a copy of `body` to `copying`.
    #[must_use]
    pub fn new(body: UpBody, copying: Copying) -> Self {
        Self { body, copying: Some(copying) }
    }
}

impl Body for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &polled {
            None => {
                if let Some(copying) = this.copying.take() {
                    copying.end();
                }
            }
            Some(Ok(frame)) => {
                let last = this.body.is_end_stream();
                Copying::frame(&mut this.copying, frame, last);
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
