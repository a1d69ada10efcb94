//! Sending to a service that has a BackendTrafficPolicy, or by a route that has
//! a `retry` of its own: a place among those in flight, an instance by the
//! policy's rules, hedges, and retries within the budget. What has neither never
//! comes here.

mod admit;
mod answer;
mod key;
mod place;
mod race;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, Version, request};
use hyper::body::Incoming;
use weir_mesh::policy::traffic::Retry;

use super::call::{Call, Speaks};
use super::choose::Choice;
use super::forward::{ATTEMPTS, GRPC_OVER_HTTP1, Payload, is_idempotent};
use crate::clock;
use crate::error::RouterError;
use crate::table::{ServiceEntry, VersionEntry};
use crate::upstream::{Failure, Pending, Permit, Reach, Sent};
use crate::worker::Worker;
use place::{Next, Place};
use race::{Ended, Why};

/// One request on its way.
struct Sending<'a> {
    worker: &'a Rc<Worker>,
    service: &'a Arc<ServiceEntry>,
    choice: &'a Choice,
    parts: &'a request::Parts,
    payload: &'a mut Payload,
    /// When it is tried again; none: only when that costs nobody anything.
    retry: Option<Cow<'a, Retry>>,
    /// It may be sent twice without harm.
    idempotent: bool,
    /// What its instance is found by, when the balancer hashes.
    key: Option<u64>,
    /// Instances that were asked.
    tried: Vec<u32>,
    /// Another service may stand in.
    may_fail_over: bool,
    /// No more connections may be opened to it.
    only_connected: bool,
}

/// What a try came to.
enum Step {
    /// To the client.
    Done(Result<Response<Incoming>, RouterError>),
    /// Nothing was done there: another try costs nobody anything.
    Free(RouterError),
    /// As many connections as may be are open.
    Full(RouterError),
    /// Something may have been done there: another try is added load.
    Charged(RouterError),
}

/// Sends a request and waits for the head of the answer.
///
/// # Errors
/// When no try succeeded, there is no room, or the deadline passed.
pub async fn send(
    worker: &Rc<Worker>,
    service: &Arc<ServiceEntry>,
    choice: &Choice,
    parts: &request::Parts,
    payload: &mut Payload,
    call: &mut Call,
) -> Result<Response<Incoming>, RouterError> {
    let mut sending = Sending {
        worker,
        service,
        choice,
        parts,
        payload,
        retry: retry(service, call),
        idempotent: is_idempotent(parts),
        key: key::of(service, parts, call),
        tried: Vec::new(),
        may_fail_over: true,
        only_connected: false,
    };
    let permit = admit::enter(worker, service, call).await?;
    match sending.send(permit, call).await? {
        Outcome::Answer(response) => Ok(response),
        Outcome::Elsewhere(other, choice) => {
            call.to(&other);
            call.flag("FO");
            other.traffic.budget.request(clock::now());
            let permit = admit::enter(worker, &other, call).await?;
            let mut instead = Sending {
                service: &other,
                choice: &choice,
                retry: retry(&other, call),
                key: key::of(&other, parts, call),
                tried: Vec::new(),
                may_fail_over: false,
                only_connected: false,
                ..sending
            };
            match instead.send(permit, call).await? {
                Outcome::Answer(response) => Ok(response),
                Outcome::Elsewhere(..) => Err(RouterError::NoInstance(call.backend_name())),
            }
        }
    }
}

/// The service's rules, with those of the route in their place.
fn retry<'a>(service: &'a ServiceEntry, call: &Call) -> Option<Cow<'a, Retry>> {
    let policy = service.traffic.policy.retry.as_ref();
    match call.action().and_then(|action| action.retry.as_ref()) {
        None => policy.map(Cow::Borrowed),
        Some(rule) => Some(Cow::Owned(policy.cloned().unwrap_or_default().of_route(rule))),
    }
}

enum Outcome {
    Answer(Response<Incoming>),
    Elsewhere(Arc<ServiceEntry>, Choice),
}

impl Sending<'_> {
    async fn send(
        &mut self,
        permit: Option<Permit>,
        call: &mut Call,
    ) -> Result<Outcome, RouterError> {
        let mut permit = permit;
        let attempts = self.retry().map_or(ATTEMPTS, |retry| retry.attempts as usize + 1);
        let mut last = None;
        let mut attempt = 0;
        while attempt < attempts {
            attempt += 1;
            let place = match self.next(call) {
                Next::Here(place) => place,
                Next::Elsewhere(service, choice) => return Ok(Outcome::Elsewhere(service, choice)),
                Next::Nowhere => break,
            };
            if place.upstream.reach == Reach::Http1 && call.speaks() == Speaks::Grpc {
                return Err(RouterError::Unsupported(GRPC_OVER_HTTP1));
            }
            if attempt > 1 {
                call.retried();
            }
            let Some(ended) = self.race(place, call).await else { break };
            match self.step(ended, attempt < attempts, &mut permit, call) {
                Step::Done(result) => return result.map(Outcome::Answer),
                Step::Full(error) => {
                    // It was our own limit: those that are connected can be asked.
                    if !self.only_connected {
                        (self.only_connected, attempt) = (true, attempt - 1);
                    }
                    last = Some(error);
                }
                Step::Free(error) => last = Some(error),
                Step::Charged(error) if attempt == attempts => return Err(error),
                Step::Charged(error) => {
                    self.pause(attempt, call).await?;
                    last = Some(error);
                    if self.all_tried() {
                        self.tried.clear();
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            let version = &self.service.versions[self.choice.version].name;
            RouterError::NoInstance(format!("{}-{version}", self.service.name))
        }))
    }

    fn step(
        &mut self,
        ended: Ended,
        more: bool,
        permit: &mut Option<Permit>,
        call: &mut Call,
    ) -> Step {
        let Ended { place, pending, took, result } = ended;
        let service = self.service;
        let version = &service.versions[place.version];
        call.tries(version, &place.upstream);
        match result {
            Ok(sent) => {
                place.upstream.load.answered(took);
                self.answered(sent, version, pending, (took, more), permit, call)
            }
            Err(why) => self.failed(why, &place, pending, more, call),
        }
    }

    fn answered(
        &mut self,
        mut sent: Sent,
        version: &VersionEntry,
        mut pending: Pending,
        (took, more): (Duration, bool),
        permit: &mut Option<Permit>,
        call: &mut Call,
    ) -> Step {
        let verdict = answer::verdict(&sent.response)
            .filter(|_| !(answer::is_late(&sent.response) && call.is_hurried()));
        if let Some(good) = verdict {
            pending.ended(good, &self.worker.shared.metrics);
        }
        if self.wants_another(&sent.response) && self.payload_is_whole() {
            if more && self.spend() {
                let status = sent.response.status().to_string();
                if verdict == Some(false) {
                    call.lost(self.service, version);
                }
                return Step::Charged(RouterError::BadAnswer(call.backend_name(), status));
            }
            call.flag("URX");
        }
        self.payload.settle();
        if let Some(watched) = pending.watch() {
            watched.answered(took);
            watched.hold(permit.take());
        }
        call.hold(sent.lease, pending);
        // What an HTTP/1.0 server said of itself is not true of us.
        *sent.response.version_mut() = Version::HTTP_11;
        Step::Done(Ok(sent.response))
    }

    fn failed(
        &mut self,
        why: Why,
        place: &Place,
        mut pending: Pending,
        more: bool,
        call: &mut Call,
    ) -> Step {
        let name = call.backend_name();
        let (mut reached, mut hurried) = (false, false);
        let step = match why {
            Why::Failed(Failure::Connect(error, request)) => {
                self.payload.unread(request.into_body());
                if error.kind() == std::io::ErrorKind::QuotaExceeded {
                    let service = &self.service.name;
                    return Step::Full(RouterError::Overflow(format!(
                        "this router has as many connections to {service} as the limit \
                         maxConnections of its BackendTrafficPolicy allows; try again later"
                    )));
                }
                Step::Free(RouterError::Connect(name, error))
            }
            // Its connection was closing: another one to the same instance will do.
            Why::Failed(Failure::Unsent(error, request)) => {
                self.payload.unread(request.into_body());
                self.tried.retain(|index| *index != place.index);
                return Step::Free(RouterError::Upstream(name, error));
            }
            Why::Failed(Failure::Refused(error)) => Step::Free(RouterError::Upstream(name, error)),
            Why::Failed(Failure::Broken(_)) if self.payload.broke() => {
                let error = "the request's body broke off".to_owned();
                return Step::Done(Err(RouterError::BadRequest(error)));
            }
            Why::Failed(Failure::Broken(error)) => {
                self.again(RouterError::Upstream(name, error), more, call)
            }
            Why::Slow(limit) => {
                reached = true;
                self.again(RouterError::Timeout(limit), more, call)
            }
            Why::Deadline => {
                (reached, hurried) = (true, call.is_hurried());
                Step::Done(Err(RouterError::Timeout(call.budget())))
            }
        };
        if !reached {
            place.upstream.load.failed();
        }
        if !hurried {
            call.lost(self.service, &self.service.versions[place.version]);
            pending.ended(false, &self.worker.shared.metrics);
        }
        step
    }

    /// After a try that may have been heard.
    fn again(&self, error: RouterError, more: bool, call: &mut Call) -> Step {
        if !self.idempotent {
            return Step::Done(Err(error));
        }
        if more && self.spend() {
            return Step::Charged(error);
        }
        call.flag("URX");
        Step::Done(Err(error))
    }

    /// Whether the budget has one more.
    fn spend(&self) -> bool {
        let may = self.service.traffic.budget.spend(clock::now());
        if !may {
            let labels = [("weir_service", self.service.name.as_str())];
            let help = "Retries and hedges that the retry budget did not allow.";
            let registry = self.worker.shared.metrics.registry();
            registry.counter("weir.router.retries.denied", help, "", &labels).inc();
        }
        may
    }

    /// What holds for this request's retries.
    fn retry(&self) -> Option<&Retry> {
        self.retry.as_deref()
    }

    fn payload_is_whole(&mut self) -> bool {
        match &*self.payload {
            Payload::Stream(source) => source.attempt().is_some(),
            Payload::Full(_) => true,
            Payload::Once(body) => body.is_some(),
        }
    }

    fn wants_another(&self, response: &Response<Incoming>) -> bool {
        self.retry().is_some_and(|retry| answer::is_for_retry(retry, response, self.idempotent))
    }

    /// Between two tries: anything from nothing to the longest (full jitter).
    async fn pause(&self, attempt: usize, call: &Call) -> Result<(), RouterError> {
        let Some(retry) = self.retry() else { return Ok(()) };
        let doublings = u32::try_from(attempt - 1).unwrap_or(u32::MAX).min(16);
        let longest = retry.backoff.base.saturating_mul(1 << doublings).min(retry.backoff.max);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        let pause = retry.backoff.least + Duration::from_micros(fastrand::u64(..=micros));
        call.in_time(tokio::time::sleep(pause)).await
    }
}
