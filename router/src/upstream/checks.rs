//! Active health checks: one worker asks for the whole router, and tells all
//! workers by each instance's [`Host`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use weir_mesh::policy::traffic::{HealthCheck, Probe};
use weir_mesh::telemetry::metrics::Gauge;

use super::{Host, Upstream};
use crate::clock;
use crate::request::body::UpBody;
use crate::table::ServiceEntry;
use crate::upstream::{Reach, Sent};
use crate::worker::Worker;

/// Checks that run at one time.
const AT_ONCE: usize = 16;
/// Of an answer's body: a gRPC message that says one number.
const BODY: usize = 1024;

/// What one check needs.
struct Check {
    rules: HealthCheck,
    host: Arc<Host>,
    upstream: Upstream,
    authority: String,
    healthy: Gauge,
}

struct Running {
    rules: HealthCheck,
    host: Arc<Host>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Checks what each table wants checked. For ever; on one worker of a router.
pub async fn run(worker: Rc<Worker>) {
    let at_once = Rc::new(Semaphore::new(AT_ONCE));
    let running: RefCell<HashMap<u32, Running>> = RefCell::default();
    loop {
        if let Some(table) = worker.table() {
            let mut wanted = HashMap::new();
            for destination in table.services.values() {
                let service = &destination.service;
                if let Some(rules) = &service.traffic.policy.health_check {
                    for endpoint in service.versions.iter().flat_map(|v| &v.endpoints) {
                        wanted.insert(endpoint.index, (service, rules, endpoint));
                    }
                }
            }
            let mut running = running.borrow_mut();
            running.retain(|index, one| {
                wanted.get(index).is_some_and(|(_, rules, endpoint)| {
                    **rules == one.rules
                        && endpoint.host.as_ref().is_some_and(|host| Arc::ptr_eq(host, &one.host))
                })
            });
            for (index, (service, rules, endpoint)) in wanted {
                let Some(host) = &endpoint.host else { continue };
                running.entry(index).or_insert_with(|| {
                    let dial = worker.dial(endpoint);
                    let check = Check {
                        rules: rules.clone(),
                        host: host.clone(),
                        upstream: Upstream::new(endpoint.id.clone(), endpoint.address, dial),
                        authority: service.name.to_string(),
                        healthy: gauge(&worker, service, &endpoint.id),
                    };
                    let task = tokio::task::spawn_local(check.run(at_once.clone()));
                    Running { rules: rules.clone(), host: host.clone(), task }
                });
            }
        }
        worker.shared.changed.notified().await;
    }
}

fn gauge(worker: &Worker, service: &ServiceEntry, instance: &str) -> Gauge {
    let labels = [("weir_service", service.name.as_str()), ("weir_instance", instance)];
    let help = "1 while an instance's health checks are good.";
    worker.shared.metrics.registry().gauge("weir.router.health_check.healthy", help, "", &labels)
}

impl Check {
    async fn run(self, at_once: Rc<Semaphore>) {
        let _unset = Unset(self.healthy.clone(), self.host.clone());
        let mut row: Option<(bool, u32)> = None;
        loop {
            let well = {
                let Ok(_permit) = at_once.acquire().await else { return };
                matches!(timeout(self.rules.timeout, self.ask()).await, Ok(true))
            };
            // The first check of all decides alone.
            let first = row.is_none();
            let count = row.filter(|(before, _)| *before == well).map_or(1, |(_, n)| n + 1);
            row = Some((well, count));
            let enough = match well {
                true => self.rules.healthy_threshold,
                false => self.rules.unhealthy_threshold,
            };
            if first || count >= enough {
                self.healthy.set(i64::from(well));
                if self.host.checked(well, clock::now()) {
                    tracing::info!(instance = &*self.upstream.id, well, "health check");
                }
            }
            sleep(jittered(self.rules.interval)).await;
        }
    }

    async fn ask(&self) -> bool {
        match &self.rules.probe {
            Probe::Tcp => self.connects().await,
            Probe::Http(path, good) => {
                let request = self.request(Method::GET, path.clone().into(), Bytes::new());
                let Some(sent) = self.send(request).await else { return false };
                let status = sent.response.status();
                // So that the connection can be used again.
                let _ =
                    http_body_util::Limited::new(sent.response.into_body(), BODY).collect().await;
                match good.is_empty() {
                    true => status.is_success(),
                    false => good.contains(&status.as_u16()),
                }
            }
            Probe::Grpc(service) => self.asks_grpc(service).await,
        }
    }

    async fn connects(&self) -> bool {
        match self.upstream.reach {
            Reach::Mesh => self.upstream.pool.dial_once().await.is_ok(),
            Reach::Http1 | Reach::Http2 | Reach::Tcp => {
                TcpStream::connect(self.upstream.address).await.is_ok()
            }
        }
    }

    /// The gRPC Health Checking Protocol (grpc.health.v1).
    async fn asks_grpc(&self, service: &str) -> bool {
        let path = Uri::from_static("/grpc.health.v1.Health/Check");
        let mut request = self.request(Method::POST, path, frame(service));
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let Some(sent) = self.send(request).await else { return false };
        let (head, body) = sent.response.into_parts();
        let Ok(body) = http_body_util::Limited::new(body, BODY).collect().await else {
            return false;
        };
        let trailers = body.trailers().and_then(|t| t.get("grpc-status")).cloned();
        let status = trailers.or_else(|| head.headers.get("grpc-status").cloned());
        head.status == StatusCode::OK
            && status.is_some_and(|status| status == "0")
            && is_serving(&body.to_bytes())
    }

    async fn send(&self, request: Request<UpBody>) -> Option<Sent> {
        self.upstream.pool.send(request).await.ok()
    }

    fn request(&self, method: Method, path: Uri, body: Bytes) -> Request<UpBody> {
        let empty = body.is_empty();
        let body = if empty { UpBody::Empty } else { UpBody::Full(Some(body)) };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static("weir-health-check"));
        if self.upstream.reach == Reach::Http1 {
            if let Ok(host) = self.authority.parse() {
                headers.insert(header::HOST, host);
            }
            *request.uri_mut() = path;
            return request;
        }
        let mut parts = path.into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = self.authority.parse().ok();
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = http::Version::HTTP_2;
        request
    }
}

/// An instance that is no longer checked is well again.
struct Unset(Gauge, Arc<Host>);

impl Drop for Unset {
    fn drop(&mut self) {
        self.0.set(0);
        self.1.checked(true, clock::now());
    }
}

/// Up to a tenth more or less: many routers do not ask at the same moment.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() * 0.2)
}

/// A `HealthCheckRequest` in its frame.
fn frame(service: &str) -> Bytes {
    let message = weir_health(service);
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// `string service = 1`.
fn weir_health(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        prost::encoding::string::encode(1, &service.to_owned(), &mut message);
    }
    message
}

/// Whether a framed `HealthCheckResponse` says SERVING: `ServingStatus status =
/// 1` is 1.
fn is_serving(frame: &[u8]) -> bool {
    matches!(frame, [0, 0, 0, 0, 2, 8, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_health_messages() {
        assert_eq!(&frame("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&frame("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        assert!(!is_serving(&[0, 0, 0, 0, 2, 8, 2]) && !is_serving(&[0, 0, 0, 0, 0]));
    }

    #[test]
    fn checks_come_at_most_a_tenth_early_or_late() {
        let second = Duration::from_secs(1);
        for _ in 0..100 {
            let next = jittered(second);
            assert!(next >= second.mul_f64(0.89) && next <= second.mul_f64(1.11), "{next:?}");
        }
    }
}
