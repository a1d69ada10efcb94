//! The API listener's front door while a replica starts, and after.

use std::sync::{Arc, OnceLock};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tonic::body::Body;
use weir_mesh::shutdown::Shutdown;

use super::mirror::Mirror;
use crate::front::{Front, answer};
use crate::serve::Handler;

/// Answers probes at once, and everything else when this replica serves.
#[derive(Clone)]
pub struct Door {
    mirror: Arc<Mirror>,
    front: Arc<OnceLock<Front>>,
    shutdown: Shutdown,
}

impl Door {
    /// Of a replica that does not serve yet.
    #[must_use]
    pub fn new(mirror: Arc<Mirror>, shutdown: Shutdown) -> Self {
        Self { mirror, front: Arc::default(), shutdown }
    }

    /// This replica serves from now on, until its end.
    pub fn open(&self, front: Front) {
        // Once.
        let _ = self.front.set(front);
    }

    fn starting(&self, method: &Method, path: &str) -> Response<Body> {
        let text = "text/plain";
        match (method, path) {
            (&Method::GET | &Method::HEAD, "/live") => answer(StatusCode::OK, text, "live\n"),
            (&Method::GET | &Method::HEAD, "/ready") if !self.shutdown.is_requested() => {
                let missing = self.mirror.missing();
                let missing: Vec<_> = missing.iter().map(|kind| kind.as_str()).collect();
                let why = match missing.is_empty() {
                    true => "starting\n".to_owned(),
                    false => format!("not listed yet: {}\n", missing.join(", ")),
                };
                answer(StatusCode::SERVICE_UNAVAILABLE, text, why)
            }
            _ => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                text,
                "this replica does not serve now; ask the Service weir-control-plane\n",
            ),
        }
    }
}

impl Handler for Door {
    async fn handle(self, request: Request<Incoming>) -> Response<Body> {
        match self.front.get() {
            Some(front) if !self.shutdown.is_requested() => front.clone().handle(request).await,
            _ => self.starting(request.method(), request.uri().path()),
        }
    }
}
