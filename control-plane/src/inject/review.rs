//! `AdmissionReview` of `admission.k8s.io/v1`: what the API server asks the webhook.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{InjectConfig, NamespaceFacts, Outcome, inject};

/// `apiVersion` of questions and answers.
const API_VERSION: &str = "admission.k8s.io/v1";

/// A question of the API server: what about this pod?
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    uid: String,
    namespace: String,
    pod: Value,
}

/// Why a body is no question: answer with 400 and this text.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Not JSON.
    #[error("the body is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but of something else.
    #[error("{0}")]
    Field(&'static str),
}

impl Review {
    /// Reads a request's body.
    ///
    /// # Errors
    /// [`ReviewError`].
    pub fn parse(body: &[u8]) -> Result<Self, ReviewError> {
        let mut review: Value = serde_json::from_slice(body)?;
        if review["kind"] != "AdmissionReview" || review["apiVersion"] != API_VERSION {
            return Err(ReviewError::Field(
                "the body is no AdmissionReview of admission.k8s.io/v1",
            ));
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let uid = text(&review["request"]["uid"]);
        Ok(Self {
            uid: uid.ok_or(ReviewError::Field("request.uid is missing"))?,
            namespace: text(&review["request"]["namespace"]).unwrap_or_default(),
            pod: review["request"]["object"].take(),
        })
    }

    /// The namespace in which the pod is going to be, whose facts are wanted.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The answer's body. A pod that cannot be injected as it asks is denied with all
    /// reasons; one that stays without a router although somebody asked for it is
    /// let in with a warning.
    #[must_use]
    pub fn answer(&self, config: &InjectConfig, namespace: &NamespaceFacts) -> Vec<u8> {
        let mut response = json!({"uid": self.uid, "allowed": true});
        if self.pod["kind"] == "Pod" {
            self.decide(config, namespace, &mut response);
        }
        let review =
            json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response});
        review.to_string().into_bytes()
    }

    fn decide(&self, config: &InjectConfig, namespace: &NamespaceFacts, response: &mut Value) {
        match inject(config, namespace, &self.pod) {
            Ok(Outcome::Injected(injected)) => {
                response["patchType"] = "JSONPatch".into();
                response["patch"] = STANDARD.encode(injected.patch.to_string()).into();
                if !injected.warnings.is_empty() {
                    response["warnings"] = injected.warnings.iter().map(|w| warning(w)).collect();
                }
            }
            Ok(Outcome::Unchanged(reason)) if reason.surprises() => {
                let text = format!("this pod gets no router of the mesh: {reason}");
                response["warnings"] = json!([warning(&text)]);
            }
            Ok(Outcome::Unchanged(_)) => {}
            Err(invalid) => {
                response["allowed"] = false.into();
                let message = format!("weir cannot inject a router: {invalid}");
                response["status"] =
                    json!({"code": 400, "reason": "BadRequest", "message": message});
            }
        }
    }
}

/// The API server cuts warnings that are longer than 256 bytes; the end is ours then.
fn warning(text: &str) -> Value {
    const BYTES: usize = 250;
    let whole = format!("weir: {text}");
    if whole.len() <= BYTES {
        return whole.into();
    }
    let end = (0..=BYTES - 3).rev().find(|end| whole.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &whole[..end]).into()
}
