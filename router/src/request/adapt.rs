//! At the gateway: JSON and gRPC-Web become gRPC, and their answers go back.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, header, request};
use hyper::body::Incoming;
use tokio::time::Instant as Deadline;

use super::answer::DownBody;
use super::call::Call;
use super::forward::Payload;
use super::{grpc_web, headers, json};
use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::table::ServiceEntry;
use weir_mesh::model::Protocol;

/// How the answer is turned back.
pub enum Adapter {
    /// It is not.
    None,
    /// Into JSON.
    Json(json::Transcoding),
    /// Into gRPC-Web.
    Web(grpc_web::Encoding),
}

/// Whether a request may need [`request`]; else it is sent on as it is.
#[must_use]
pub fn concerns(connected: &Connected, service: &ServiceEntry) -> bool {
    connected.side == Side::Gateway && service.protocol == Protocol::Grpc
}

/// Turns a request at the gateway into what its service speaks, which is gRPC.
///
/// # Errors
/// When there is no mapping, or the request does not fit it.
pub async fn request(
    service: &Arc<ServiceEntry>,
    parts: &mut request::Parts,
    body: Incoming,
    deadline: Option<Deadline>,
) -> Result<(Adapter, Payload), RouterError> {
    if let Some(encoding) = grpc_web::Encoding::of(&parts.headers) {
        let body = grpc_web::request(encoding, parts, body);
        return Ok((Adapter::Web(encoding), Payload::Once(Some(body))));
    }
    if is_grpc(&parts.headers) {
        return Ok((Adapter::None, Payload::stream(body)));
    }
    let Some(transcoder) = &service.transcoder else {
        return Err(RouterError::Unsupported(
            "this service speaks gRPC and has no descriptorSet to map JSON by",
        ));
    };
    let collecting = json::request(transcoder.clone(), parts, body, deadline);
    let (transcoding, payload) = Box::pin(collecting).await?;
    Ok((Adapter::Json(transcoding), payload))
}

impl Adapter {
    /// Turns an answer into what the client asked in.
    ///
    /// # Errors
    /// When the answer is not what its service promised.
    pub async fn response(
        self,
        mut response: Response<Incoming>,
        call: &mut Call,
    ) -> Result<Response<DownBody>, RouterError> {
        match self {
            Self::None => Ok(passed(response, call)),
            Self::Web(encoding) => {
                headers::strip_hop_by_hop(response.headers_mut());
                call.answered(&response);
                Ok(grpc_web::response(encoding, response))
            }
            Self::Json(transcoding) => {
                headers::strip_hop_by_hop(response.headers_mut());
                Box::pin(transcoding.response(response, call)).await
            }
        }
    }
}

/// An answer that goes back as it is.
#[must_use]
pub fn passed(mut response: Response<Incoming>, call: &mut Call) -> Response<DownBody> {
    headers::strip_hop_by_hop(response.headers_mut());
    call.answered(&response);
    response.map(DownBody::stream)
}

/// Whether a message is gRPC, and not gRPC-Web.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc") && !value.starts_with(b"application/grpc-web")
    })
}

/// The content type of gRPC.
pub const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
