//! What a verified token says of a request.

use std::sync::Arc;

use serde_json::{Map, Value};

/// The claims of a token whose signature, issuer, audience and times were
/// checked. An extension of the request: whoever checks puts it there, and what
/// a client merely sends is never here.
#[derive(Debug, Clone)]
pub struct VerifiedClaims(pub Arc<Map<String, Value>>);
