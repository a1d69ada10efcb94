//! One try, and hedges that run beside it while it is slow.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use http::Request;
use tokio::time::{Instant as Deadline, sleep_until, timeout_at};

use super::answer;
use super::place::Place;
use super::{Call, Sending};
use crate::request::body::UpBody;
use crate::request::forward::outgoing;
use crate::upstream::{Failure, Limiter, Pending, Sent, Upstream, Watched};

/// What came of one instance.
pub(super) struct Ended {
    pub place: Place,
    pub pending: Pending,
    pub took: Duration,
    pub result: Result<Sent, Why>,
}

pub(super) enum Why {
    Failed(Failure),
    /// No answer within the time of one try.
    Slow(Duration),
    /// No answer within the time of the request.
    Deadline,
}

type Running<'f> = FuturesUnordered<LocalBoxFuture<'f, Ended>>;

impl Sending<'_> {
    /// Asks an instance, and others as well while there is no answer and the
    /// rules allow it. The first good answer wins; what else is under way is
    /// cancelled. None when the body cannot be sent again.
    pub(super) async fn race(&mut self, place: Place, call: &mut Call) -> Option<Ended> {
        let mut running = Running::new();
        running.push(self.begin(place, call)?);
        let hedging = self.service.traffic.policy.hedging.filter(|_| self.idempotent);
        let mut left = hedging.map_or(0, |hedging| hedging.max_attempts - 1);
        let delay = hedging.map(|hedging| hedging.delay).unwrap_or_default();
        let mut at = Deadline::now() + delay;
        loop {
            tokio::select! {
                biased;
                ended = running.next() => {
                    let mut ended = ended?;
                    if running.is_empty() || self.is_good(&ended) {
                        return Some(ended);
                    }
                    // One of several: the others may do better.
                    self.lost(&mut ended, call);
                }
                () = sleep_until(at), if left > 0 => {
                    left -= 1;
                    at += delay;
                    match self.hedge(call) {
                        Some(hedge) => running.push(hedge),
                        None => left = 0,
                    }
                }
            }
        }
    }

    /// Notes what one of several says of its instance, as for one alone.
    fn lost(&self, ended: &mut Ended, call: &mut Call) {
        let fault = match &ended.result {
            Err(Why::Failed(Failure::Connect(error, _)))
                if error.kind() == std::io::ErrorKind::QuotaExceeded =>
            {
                false
            }
            Err(Why::Failed(_)) => {
                ended.place.upstream.load.failed();
                true
            }
            Err(Why::Deadline) => !call.is_hurried(),
            Ok(_) | Err(Why::Slow(_)) => true,
        };
        // Rules may want another answer than one that is no fault, such as 429.
        let is_fault = |sent: &Sent| answer::verdict(&sent.response) == Some(false);
        if fault && ended.result.as_ref().map_or(true, is_fault) {
            call.lost(self.service, &self.service.versions[ended.place.version]);
        }
        if fault {
            ended.pending.ended(false, &self.worker.shared.metrics);
        }
    }

    fn is_good(&self, ended: &Ended) -> bool {
        ended.result.as_ref().is_ok_and(|sent| !self.wants_another(&sent.response))
    }

    fn hedge<'f>(&mut self, call: &mut Call) -> Option<LocalBoxFuture<'f, Ended>> {
        if !self.payload.is_held() || self.all_tried() {
            return None;
        }
        let place = self.another()?;
        if !self.spend() {
            return None;
        }
        let labels = [("weir_service", self.service.name.as_str())];
        let help = "Instances that were asked because another was slow.";
        let registry = self.worker.shared.metrics.registry();
        registry.counter("weir.router.hedges", help, "", &labels).inc();
        call.event("hedge");
        self.begin(place, call)
    }

    fn begin<'f>(&mut self, place: Place, call: &mut Call) -> Option<LocalBoxFuture<'f, Ended>> {
        let body = self.payload.attempt()?;
        self.tried.push(place.index);
        call.tries(&self.service.versions[place.version], &place.upstream);
        let request = outgoing(self.parts, body, place.upstream.reach, call);
        let watched = Watched::new(self.service.clone(), place.host.clone());
        let pending = Pending::watched(place.upstream.clone(), watched);
        let traffic = &self.service.traffic;
        let of_policy = self.retry().and_then(|retry| retry.per_try_timeout);
        let of_rule = call.action().and_then(|action| action.backend_timeout);
        let limit = of_policy.into_iter().chain(of_rule).min();
        let connections = traffic.connections.clone();
        let one = ask(place.upstream.clone(), request, connections, call.deadline(), limit);
        Some(Box::pin(async move {
            let (took, result) = one.await;
            Ended { place, pending, took, result }
        }))
    }
}

/// Notes that an instance was slow when its try is given up.
struct Slow(Rc<Upstream>, Instant, bool);

impl Drop for Slow {
    fn drop(&mut self) {
        if !self.2 {
            self.0.load.slow(self.1.elapsed());
        }
    }
}

async fn ask(
    upstream: Rc<Upstream>,
    request: Request<UpBody>,
    connections: Option<Arc<Limiter>>,
    deadline: Option<Deadline>,
    limit: Option<Duration>,
) -> (Duration, Result<Sent, Why>) {
    let began = Instant::now();
    let mut slow = Slow(upstream.clone(), began, false);
    let sending = upstream.pool.send_within(request, connections.as_ref());
    let own = limit.map(|limit| Deadline::now() + limit);
    let end = match (deadline, own) {
        (Some(deadline), Some(own)) => Some(deadline.min(own)),
        (deadline, own) => deadline.or(own),
    };
    let result = match end {
        None => sending.await,
        Some(end) => match timeout_at(end, sending).await {
            Ok(result) => result,
            Err(_) => {
                let whole = deadline.is_some_and(|deadline| deadline <= end);
                let why = limit.filter(|_| !whole).map_or(Why::Deadline, Why::Slow);
                return (began.elapsed(), Err(why));
            }
        },
    };
    slow.2 = true;
    (began.elapsed(), result.map_err(Why::Failed))
}
