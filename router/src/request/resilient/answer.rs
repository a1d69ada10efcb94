//! What the head of an answer says of its instance.

use http::{HeaderMap, Response};
use weir_mesh::policy::traffic::Retry;

use crate::error::grpc;
use crate::request::adapt::is_grpc;

/// Whether the instance did well; none while only the trailers will tell.
pub(super) fn verdict<B>(response: &Response<B>) -> Option<bool> {
    if response.status().is_server_error() {
        return Some(false);
    }
    match grpc_status(response.headers()) {
        Some(code) => Some(!is_fault(code)),
        None if is_grpc(response.headers()) => None,
        None => Some(true),
    }
}

/// Whether the server says that the call's deadline passed.
pub(super) fn is_late<B>(response: &Response<B>) -> bool {
    grpc_status(response.headers()) == Some(grpc::DEADLINE_EXCEEDED)
}

/// Whether the rules want another try after this answer.
pub(super) fn is_for_retry<B>(retry: &Retry, response: &Response<B>, idempotent: bool) -> bool {
    match grpc_status(response.headers()) {
        // With the head there are no messages: nothing of an answer was read.
        Some(code) => retry.grpc_statuses.contains(&code),
        None => idempotent && retry.status_codes.contains(&response.status().as_u16()),
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    let value = headers.get("grpc-status")?;
    Some(value.to_str().ok().and_then(|value| value.parse().ok()).unwrap_or(grpc::UNKNOWN))
}

/// The server's fault, as its HTTP status would say (5xx).
fn is_fault(code: u8) -> bool {
    matches!(
        code,
        grpc::UNKNOWN
            | grpc::DEADLINE_EXCEEDED
            | grpc::INTERNAL
            | grpc::UNAVAILABLE
            | grpc::DATA_LOSS
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_mesh::policy::traffic::Backoff;

    fn response(status: u16, headers: &[(&'static str, &'static str)]) -> Response<()> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn a_verdict_waits_for_trailers_of_grpc_alone() {
        let grpc = ("content-type", "application/grpc");
        assert_eq!(verdict(&response(200, &[])), Some(true));
        assert_eq!(verdict(&response(404, &[])), Some(true));
        assert_eq!(verdict(&response(503, &[grpc])), Some(false));
        assert_eq!(verdict(&response(200, &[grpc])), None);
        assert_eq!(verdict(&response(200, &[grpc, ("grpc-status", "14")])), Some(false));
        assert_eq!(verdict(&response(200, &[grpc, ("grpc-status", "5")])), Some(true));
    }

    #[test]
    fn only_what_is_safe_is_sent_again() {
        let retry = Retry {
            attempts: 2,
            status_codes: vec![503],
            grpc_statuses: vec![14],
            backoff: Backoff::default(),
            per_try_timeout: None,
        };
        assert!(is_for_retry(&retry, &response(503, &[]), true));
        assert!(!is_for_retry(&retry, &response(503, &[]), false));
        assert!(!is_for_retry(&retry, &response(500, &[]), true));
        assert!(is_for_retry(&retry, &response(200, &[("grpc-status", "14")]), false));
    }
}
