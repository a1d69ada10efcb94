//! JSON over HTTP: transcoded to gRPC, which is called in this process.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tonic::Code;
use tonic::body::Body;
use weir_mesh::transcode::{Call, Deframer, Found, GrpcStatus, Transcoder, frame, http_status};

use super::{Inner, answer as reply, method_not_allowed, refuse};
use crate::api::{IDEMPOTENCY_KEY, MAX_MESSAGE};
use crate::replica;

const JSON: &str = "application/json";

pub(super) async fn answer(front: &Inner, request: Request<Body>) -> Response<Body> {
    let transcoder = &front.transcoder;
    let found = match transcoder.find(request.method(), request.uri().path()) {
        Found::Call(call) => call,
        Found::MethodNotAllowed(allowed) => return method_not_allowed(&allowed),
        Found::NotFound => {
            let why = "no such path; /openapi.json lists them all";
            return refuse(StatusCode::NOT_FOUND, Code::NotFound, why);
        }
    };
    let head = request.method() == Method::HEAD;
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_MESSAGE).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let why = format!("the body is above {MAX_MESSAGE} bytes");
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, &why);
        }
        Err(_) => {
            return refuse(StatusCode::BAD_REQUEST, Code::Aborted, "the body did not come whole");
        }
    };
    let message = match found.encode_request(parts.uri.query(), &body) {
        Ok(message) => message,
        Err(error) => return reply(http_status(error.code()), JSON, error.to_json()),
    };
    let mut inner = Request::new(Body::new(Full::new(frame(&message))));
    *inner.method_mut() = Method::POST;
    *inner.version_mut() = Version::HTTP_2;
    *inner.extensions_mut() = parts.extensions;
    inner.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(key) = parts.headers.get(IDEMPOTENCY_KEY) {
        inner.headers_mut().insert(IDEMPOTENCY_KEY, key.clone());
    }
    match found.grpc_path().parse() {
        Ok(uri) => *inner.uri_mut() = uri,
        Err(_) => return broken(),
    }
    let mut answer =
        finish(transcoder, &found, replica::call(&front.control, &front.routes, inner).await).await;
    if head {
        *answer.body_mut() = Body::default();
    }
    answer
}

async fn finish(transcoder: &Transcoder, call: &Call, answer: Response<Body>) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let Ok(body) = body.collect().await else { return broken() };
    let trailers = body.trailers().and_then(GrpcStatus::from_headers);
    let Some(status) = trailers.or_else(|| GrpcStatus::from_headers(&parts.headers)) else {
        return broken();
    };
    if status.code != 0 {
        let json = transcoder.error_json(status.code, &status.message, status.details.as_deref());
        return reply(http_status(status.code), JSON, json);
    }
    match message(body.to_bytes()).map(|message| call.decode_response(&message)) {
        Some(Ok(json)) => reply(StatusCode::OK, JSON, json),
        _ => broken(),
    }
}

fn message(body: Bytes) -> Option<Bytes> {
    let mut frames = Deframer::new(usize::MAX);
    frames.push(body);
    frames.next_message().ok().flatten()
}

/// The services are in this process: only a mistake in it leads here.
fn broken() -> Response<Body> {
    let why = "the answer could not be written as JSON; this is a mistake in Weir";
    refuse(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, why)
}
