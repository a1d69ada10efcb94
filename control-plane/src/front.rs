//! The API listener's front door: gRPC as it is, JSON by the annotations, and a
//! few plain pages. Only `/live`, `/ready`, `/openapi.json`, the page itself (which
//! holds no data) and gRPC health are for everyone; for the rest `access` says who may.

mod json;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use weir_mesh::transcode::{Transcoder, error_json};

use crate::access::{Access, Denial};
use crate::control::Control;
use crate::metrics::Metrics;
use crate::replica;
use crate::serve::{Handler, RemoteAddress, call};

const PAGE: &str = include_str!("front/page.html");
/// The page has one inline script and style, and talks to where it came from.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src \
     'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// Answers requests to the API listener.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    control: Arc<Control>,
    access: Arc<Access>,
    routes: Routes,
    transcoder: Transcoder,
    openapi: Bytes,
    metrics: Metrics,
}

impl Front {
    /// Puts the front door before gRPC services.
    #[must_use]
    pub fn new(
        control: Arc<Control>,
        access: Arc<Access>,
        routes: Routes,
        transcoder: Transcoder,
        metrics: Metrics,
    ) -> Self {
        let openapi = transcoder.openapi("Weir control plane", env!("CARGO_PKG_VERSION"), &["/"]);
        let openapi = openapi.to_string().into();
        Self(Arc::new(Inner { control, access, routes, transcoder, openapi, metrics }))
    }
}

impl Handler for Front {
    async fn handle(self, request: Request<Incoming>) -> Response<Body> {
        self.0.answer(request.map(Body::new)).await
    }
}

impl Inner {
    async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        if get && let Some(page) = self.open_page(request.uri().path()) {
            return page;
        }
        let grpc = is_grpc(request.headers());
        if grpc && request.uri().path().starts_with("/grpc.health.v1.Health/") {
            return call(self.routes.clone(), request).await;
        }
        match self.access.caller(request.headers(), request.extensions()).await {
            Ok(caller) => drop(request.extensions_mut().insert(caller)),
            Err(denial) => {
                let peer = request.extensions().get::<RemoteAddress>().map(|peer| peer.0.ip());
                return self.deny(denial, grpc, peer).await;
            }
        }
        if grpc {
            return replica::call(&self.control, &self.routes, request).await;
        }
        if get && request.uri().path() == "/metrics" {
            let text = self.metrics.render(&self.control);
            return answer(StatusCode::OK, "text/plain; version=0.0.4", text);
        }
        json::answer(self, request).await
    }

    /// What anyone may see.
    fn open_page(&self, path: &str) -> Option<Response<Body>> {
        Some(match path {
            "/" => {
                let mut page = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE);
                let policy = HeaderValue::from_static(PAGE_POLICY);
                page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
                page
            }
            "/live" => answer(StatusCode::OK, "text/plain", "live\n"),
            "/ready" if self.control.shutdown.is_requested() => {
                answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "stopping\n")
            }
            "/ready" => answer(StatusCode::OK, "text/plain", "ready\n"),
            "/openapi.json" => answer(StatusCode::OK, "application/json", self.openapi.clone()),
            _ => return None,
        })
    }

    /// Tells somebody who is not let in at all.
    async fn deny(&self, denial: Denial, grpc: bool, peer: Option<IpAddr>) -> Response<Body> {
        let status = match denial {
            Denial::Unknown(kind, why) => {
                self.control.refusals.unknown(peer, kind);
                if !grpc {
                    return unauthenticated(&why);
                }
                Status::unauthenticated(why)
            }
            Denial::Known(caller, why) => self.control.refuse(&caller, "the API", &why).await,
        };
        if grpc {
            return status.into_http();
        }
        refuse(StatusCode::FORBIDDEN, status.code(), status.message())
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// A whole answer.
pub(crate) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut answer = Response::new(Body::new(Full::new(body.into())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A `google.rpc.Status` as JSON.
fn refuse(status: StatusCode, code: tonic::Code, why: &str) -> Response<Body> {
    answer(status, "application/json", error_json(code as i32, why, None))
}

fn unauthenticated(why: &str) -> Response<Body> {
    let mut answer = refuse(StatusCode::UNAUTHORIZED, tonic::Code::Unauthenticated, why);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

fn method_not_allowed(allowed: &[Method]) -> Response<Body> {
    let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
    let names = names.join(", ");
    let why = format!("this path answers to {names}");
    let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, tonic::Code::Unimplemented, &why);
    if let Ok(names) = HeaderValue::from_str(&names) {
        answer.headers_mut().insert(ALLOW, names);
    }
    answer
}
