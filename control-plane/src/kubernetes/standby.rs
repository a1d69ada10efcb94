//! The API listener's front door of a replica that may lead or not.

use std::sync::{Arc, OnceLock};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tonic::body::Body;
use weir_mesh::shutdown::Shutdown;

use super::mirror::Mirror;
use crate::front::{Front, answer};
use crate::serve::Handler;

/// Answers probes at once, and everything else when this replica leads.
#[derive(Clone)]
pub struct Door {
    mirror: Arc<Mirror>,
    leads: Arc<OnceLock<Front>>,
    shutdown: Shutdown,
}

impl Door {
    /// Of a replica that does not lead yet.
    #[must_use]
    pub fn new(mirror: Arc<Mirror>, shutdown: Shutdown) -> Self {
        Self { mirror, leads: Arc::default(), shutdown }
    }

    /// This replica leads from now on, until its end.
    pub fn lead(&self, front: Front) {
        // It leads once.
        let _ = self.leads.set(front);
    }

    fn stand_by(&self, method: &Method, path: &str) -> Response<Body> {
        let text = "text/plain";
        match (method, path) {
            (&Method::GET | &Method::HEAD, "/live") => answer(StatusCode::OK, text, "live\n"),
            (&Method::GET | &Method::HEAD, "/ready") if !self.shutdown.is_requested() => {
                let missing = self.mirror.missing();
                if missing.is_empty() {
                    return answer(StatusCode::OK, text, "ready; another replica leads\n");
                }
                let missing: Vec<_> = missing.iter().map(|kind| kind.as_str()).collect();
                let why = format!("not listed yet: {}\n", missing.join(", "));
                answer(StatusCode::SERVICE_UNAVAILABLE, text, why)
            }
            _ => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                text,
                "this replica does not lead; ask the Service weir-control-plane\n",
            ),
        }
    }
}

impl Handler for Door {
    async fn handle(self, request: Request<Incoming>) -> Response<Body> {
        match self.leads.get() {
            Some(front) if !self.shutdown.is_requested() => front.clone().handle(request).await,
            _ => self.stand_by(request.method(), request.uri().path()),
        }
    }
}
