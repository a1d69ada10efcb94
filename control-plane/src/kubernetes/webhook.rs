//! Where the API server asks about new pods. Every replica answers.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tonic::body::Body;

use super::mirror::Mirror;
use super::objects::Kind;
use crate::front::answer;
use crate::inject::{InjectConfig, NamespaceFacts, Review};
use crate::serve::Handler;

/// Bytes of a question: a pod has at most 1.5 MiB, and it may come twice.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// Answers the API server.
#[derive(Clone)]
pub struct Webhook {
    mirror: Arc<Mirror>,
    config: Arc<InjectConfig>,
}

impl Webhook {
    /// Injects as `config` says.
    #[must_use]
    pub fn new(mirror: Arc<Mirror>, config: InjectConfig) -> Self {
        Self { mirror, config: Arc::new(config) }
    }

    async fn inject(&self, body: Incoming) -> Response<Body> {
        let plain = |status, why: String| answer(status, "text/plain", why);
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return plain(StatusCode::BAD_REQUEST, format!("the body: {error}\n")),
        };
        let review = match Review::parse(&body) {
            Ok(review) => review,
            Err(error) => return plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        let Some(facts) = self.facts(review.namespace()) else {
            // The webhook's failure policy says what becomes of the pod.
            let why = "namespaces are not known yet; ask again\n".to_owned();
            return plain(StatusCode::SERVICE_UNAVAILABLE, why);
        };
        answer(StatusCode::OK, "application/json", review.answer(&self.config, &facts))
    }

    /// None: the namespace is not known, or not yet.
    fn facts(&self, namespace: &str) -> Option<NamespaceFacts> {
        if self.mirror.missing().contains(&Kind::Namespace) {
            return None;
        }
        let labels = self.mirror.read(|objects| {
            let object = objects.get(Kind::Namespace, "", namespace)?;
            let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            Some(labels.map(|(name, value)| (name.clone(), text(value))).collect())
        });
        // One that was made a moment ago: what its labels say must not be made up.
        Some(NamespaceFacts { name: namespace.to_owned(), labels: labels? })
    }
}

impl Handler for Webhook {
    async fn handle(self, request: Request<Incoming>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/inject") => self.inject(request.into_body()).await,
            (&Method::GET | &Method::HEAD, "/healthz") => {
                answer(StatusCode::OK, "text/plain", "ok\n")
            }
            _ => answer(
                StatusCode::NOT_FOUND,
                "text/plain",
                "the API server posts an AdmissionReview to /inject\n",
            ),
        }
    }
}
