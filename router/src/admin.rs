//! The admin listener: probes, metrics, and the configuration in use.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock;
use crate::config::Role;
use crate::table::{AudienceEntry, ServiceEntry, Table, VersionEntry};
use crate::upstream::Reach;
use crate::worker::Shared;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// For a probed port to take a connection.
const PROBE: Duration = Duration::from_secs(1);

/// What the admin listener shows.
pub struct Admin {
    /// The router.
    pub shared: Arc<Shared>,
    /// Set once it drains: no longer ready.
    pub draining: AtomicBool,
}

impl Admin {
    /// Serves until the runtime ends.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "admin listener");
                return;
            }
        };
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let admin = admin.clone();
                    async move {
                        let path = request.uri().path();
                        let probe = admin.probe(path).await;
                        let answer = probe.unwrap_or_else(|| admin.answer(request.method(), path));
                        Ok::<_, Infallible>(answer)
                    }
                });
                // A probe that went early is no news.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    /// Whether the application of the pod takes connections on a port, in place of a
    /// probe that would find the router there.
    async fn probe(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        let port: u16 = path.strip_prefix("/probe/tcp/")?.parse().ok()?;
        let ip = self.shared.config.pod.as_ref()?.ip?;
        let connecting = TcpStream::connect((ip, port));
        let (status, body) = match timeout(PROBE, connecting).await {
            Ok(Ok(_)) => (StatusCode::OK, "open\n".to_owned()),
            Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, format!("not open within {PROBE:?}\n")),
        };
        Some(respond(status, TEXT, body))
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, content_type, body) = match path {
            _ if method != Method::GET && method != Method::HEAD => {
                (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered here\n".into())
            }
            "/live" => (StatusCode::OK, TEXT, "live\n".into()),
            "/ready" => match self.not_ready() {
                None => (StatusCode::OK, TEXT, "ready\n".into()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
            },
            "/metrics" => (StatusCode::OK, PROMETHEUS, self.shared.metrics.registry().render()),
            "/config" => (StatusCode::OK, JSON, format!("{:#}\n", self.config())),
            _ => {
                let known = "there are /live, /ready, /metrics and /config\n";
                (StatusCode::NOT_FOUND, TEXT, known.to_owned())
            }
        };
        respond(status, content_type, body)
    }

    fn not_ready(&self) -> Option<&'static str> {
        if self.draining.load(Relaxed) {
            Some("draining")
        } else if self.shared.identity.current().is_none() {
            Some("no certificate yet; is the control plane running?")
        } else if self.shared.table.load().is_none() {
            Some("no snapshot yet; is the control plane running?")
        } else {
            None
        }
    }

    fn config(&self) -> Value {
        let config = &self.shared.config;
        let certificate = self.shared.identity.current().map(|(svid, bundle)| {
            json!({
                "id": svid.id().to_string(),
                "notBefore": svid.not_before(),
                "notAfter": svid.not_after(),
                "trustedRoots": bundle.roots().len(),
            })
        });
        json!({
            "role": if config.role == Role::Gateway { "gateway" } else { "sidecar" },
            "service": config.service.as_str(),
            "version": config.version.as_str(),
            "instance": &*config.instance_id,
            "certificate": certificate,
            "snapshot": self.shared.table.load().as_ref().map(|table| snapshot(table)),
        })
    }
}

fn respond(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn snapshot(table: &Table) -> Value {
    let mut services: Vec<_> = table.services.values().collect();
    services.sort_by(|a, b| a.service.name.cmp(&b.service.name));
    let service = |destination: &&crate::table::Destination| {
        let service = &destination.service;
        json!({
            "name": service.name.as_str(),
            "protocol": format!("{:?}", service.protocol).to_lowercase(),
            "identity": service.identity.to_string(),
            "sticky": service.sticky.as_ref().map(|sticky| format!("{sticky:?}")),
            "audiences": service.audiences.iter().map(audience(service)).collect::<Vec<_>>(),
            "mirror": service.mirror.as_ref().map(|mirror| json!({
                "version": service.versions[mirror.version].name.as_str(),
                "perMillion": mirror.per_million(),
            })),
            "versions": service.versions.iter().map(version).collect::<Vec<_>>(),
            "jsonMapping": service.transcoder.is_some(),
        })
    };
    json!({
        "sequence": table.sequence(),
        "revision": table.revision(),
        "services": services.iter().map(service).collect::<Vec<_>>(),
    })
}

fn audience(service: &ServiceEntry) -> impl Fn(&AudienceEntry) -> Value {
    |audience| {
        let version = service.versions[audience.version].name.as_str();
        json!({"who": audience.by.to_string(), "version": version})
    }
}

fn version(version: &VersionEntry) -> Value {
    let endpoint = |e: &crate::table::Endpoint| {
        json!({
            "instance": &*e.id,
            "address": e.address.to_string(),
            "healthy": e.healthy,
            "plain": e.reach != Reach::Mesh,
            "zone": &*e.zone,
            "leftOut": e.host.as_ref().is_some_and(|host| host.is_out(clock::now())),
            "failsChecks": e.host.as_ref().is_some_and(|host| host.is_ill()),
        })
    };
    json!({
        "name": version.name.as_str(),
        "weight": version.weight,
        "instances": version.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}
