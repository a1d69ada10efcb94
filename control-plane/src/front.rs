//! The API listener's front door: gRPC as it is, JSON by the annotations, and a
//! few plain pages. Only `/live`, `/ready`, `/openapi.json`, the page itself (which
//! holds no data) and gRPC health are for everyone; the rest needs the token.

mod json;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use weir_mesh::identity::Secret;
use weir_mesh::transcode::{Transcoder, error_json};

use crate::access::Caller;
use crate::control::Control;
use crate::metrics::Metrics;
use crate::replica;
use crate::serve::{Handler, call};

const PAGE: &str = include_str!("front/page.html");
/// The page has one inline script and style, and talks to where it came from.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src \
     'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";
/// Who the token stands for.
const TOKEN_NAME: &str = "admin";
/// Characters of `x-weir-actor` that are kept.
const MAX_ACTOR: usize = 128;
const NO_TOKEN: &str = "a token is needed: send `authorization: Bearer TOKEN`, with the token \
     from the control plane's --token-file";
const WRONG_TOKEN: &str = "the token is not the control plane's: compare it with its --token-file";

/// Answers requests to the API listener.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    control: Arc<Control>,
    token: Secret,
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
        token: Secret,
        routes: Routes,
        transcoder: Transcoder,
        metrics: Metrics,
    ) -> Self {
        let openapi = transcoder.openapi("Weir control plane", env!("CARGO_PKG_VERSION"), &["/"]);
        let openapi = openapi.to_string().into();
        Self(Arc::new(Inner { control, token, routes, transcoder, openapi, metrics }))
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
        match self.authenticate(request.headers()) {
            Ok(caller) => drop(request.extensions_mut().insert(caller)),
            Err(why) if grpc => return Status::unauthenticated(why).into_http(),
            Err(why) => return unauthenticated(why),
        }
        if grpc {
            return replica::call(&self.control, &self.routes, request).await;
        }
        if get && request.uri().path() == "/metrics" {
            let text = self.metrics.render(&self.control);
            return answer(StatusCode::OK, "text/plain; version=0.0.4", text);
        }
        json::answer(&self.control, &self.transcoder, &self.routes, request).await
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

    fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, &'static str> {
        let value = headers.get(AUTHORIZATION).ok_or(NO_TOKEN)?;
        // RFC 9110 §11.1: the scheme's case does not matter.
        let (scheme, token) =
            value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or(NO_TOKEN)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(NO_TOKEN);
        }
        if !self.token.matches(token.trim()) {
            return Err(WRONG_TOKEN);
        }
        let claimed = headers.get("x-weir-actor").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let claimed: String = claimed.chars().take(MAX_ACTOR).collect();
        let claimed = claimed.trim();
        let on_behalf_of = (!claimed.is_empty()).then(|| claimed.to_owned());
        Ok(Caller { on_behalf_of, ..Caller::admin(TOKEN_NAME) })
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
