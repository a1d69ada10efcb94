//! Calls of the router's own, to services of the mesh.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use prost::Message;
use tokio::time::timeout;
use weir_mesh::model::ServiceName;
use weir_mesh::transcode::{Deframer, GrpcStatus, frame};

use crate::request::adapt::GRPC;
use crate::request::body::UpBody;
use crate::request::headers;
use crate::upstream::{Failure, Pick, Reach, Sent, pick};
use crate::worker::Worker;

/// Instances that are tried.
const TRIES: usize = 2;

/// One gRPC call with one message each way.
///
/// # Errors
/// Why there is no answer: in words, for logs.
pub(super) async fn unary<Q: Message, A: Message + Default>(
    worker: &Rc<Worker>,
    service: &ServiceName,
    path: &'static str,
    question: &Q,
    limits: (Duration, usize),
) -> Result<A, String> {
    let (time, bytes) = limits;
    let message = frame(&question.encode_to_vec());
    let call = async {
        let request = |http1: bool| {
            if http1 {
                return Err(format!("{service} is spoken to in HTTP/1.1, which is no gRPC"));
            }
            let mut request = blank(service, path, UpBody::Full(Some(message.clone())));
            *request.method_mut() = Method::POST;
            let headers = request.headers_mut();
            headers.insert(header::CONTENT_TYPE, GRPC);
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            Ok(request)
        };
        let sent = send(worker, service, request).await?;
        let (parts, body) = sent.response.into_parts();
        if parts.status != StatusCode::OK {
            return Err(format!("{service} answered HTTP {}", parts.status.as_u16()));
        }
        let only = GrpcStatus::from_headers(&parts.headers);
        let body = Limited::new(body, bytes).collect().await;
        let body = body.map_err(|error| format!("the answer of {service} broke off: {error}"))?;
        let trailers = body.trailers().and_then(GrpcStatus::from_headers);
        let status = only.or(trailers).ok_or_else(|| format!("{service} gave no gRPC status"))?;
        if status.code != 0 {
            return Err(format!("{service} answered gRPC status {}", status.code));
        }
        let mut deframer = Deframer::new(bytes);
        deframer.push(body.to_bytes());
        let message = deframer.next_message().map_err(|error| error.to_string())?;
        let message = message.ok_or_else(|| format!("{service} answered nothing"))?;
        A::decode(message).map_err(|error| format!("the answer of {service}: {error}"))
    };
    timeout(time, call)
        .await
        .unwrap_or_else(|_| Err(format!("{service} did not answer in {time:?}")))
}

/// GET of a document. Gives its head as well.
///
/// # Errors
/// As [`unary`].
pub(super) async fn get(
    worker: &Rc<Worker>,
    service: &ServiceName,
    path: &str,
    limit: usize,
) -> Result<(Response<()>, Bytes), String> {
    let request = |http1: bool| {
        let mut request = blank(service, path, UpBody::Empty);
        if http1 {
            let (mut uri, mut headers) =
                (request.uri().clone(), std::mem::take(request.headers_mut()));
            headers::to_http1(&mut uri, &mut headers, &UpBody::Empty);
            *request.uri_mut() = uri;
            *request.headers_mut() = headers;
            *request.version_mut() = Version::HTTP_11;
        }
        Ok(request)
    };
    let sent = send(worker, service, request).await?;
    document(sent.response, limit).await
}

/// The whole of an answer.
///
/// # Errors
/// As [`unary`].
pub(super) async fn document(
    response: Response<Incoming>,
    limit: usize,
) -> Result<(Response<()>, Bytes), String> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, limit).collect().await;
    let body = body.map_err(|error| format!("the answer cannot be read: {error}"))?;
    Ok((Response::from_parts(parts, ()), body.to_bytes()))
}

fn blank(service: &ServiceName, path: &str, body: UpBody) -> Request<UpBody> {
    let mut request = Request::new(body);
    *request.version_mut() = Version::HTTP_2;
    if let Ok(uri) = format!("http://{service}{path}").parse() {
        *request.uri_mut() = uri;
    }
    request
}

async fn send(
    worker: &Rc<Worker>,
    name: &ServiceName,
    request: impl Fn(bool) -> Result<Request<UpBody>, String>,
) -> Result<Sent, String> {
    let table = worker.table().ok_or("there is no configuration yet")?;
    let destination = table.services.get(name).ok_or_else(|| format!("no service {name:?}"))?;
    let service = &destination.service;
    let version = &service.versions[worker.next_of(&service.splitter)];
    let mut tried = Vec::new();
    let mut last = format!("no instance of {name} can take it");
    for _ in 0..TRIES {
        let upstream = match pick(version, &tried, |e| worker.upstream(e)) {
            Pick::Good(upstream) | Pick::Panic(upstream) => upstream,
            Pick::None => break,
        };
        let request = request(upstream.reach == Reach::Http1)?;
        match upstream.pool.send(request).await {
            Ok(sent) => return Ok(sent),
            Err(Failure::Connect(error, _)) => {
                let index = version.endpoints.iter().find(|e| e.id == upstream.id);
                tried.extend(index.map(|e| e.index));
                last = format!("cannot connect to {name}: {error}");
            }
            Err(Failure::Unsent(error, _) | Failure::Refused(error) | Failure::Broken(error)) => {
                last = format!("the connection to {name} broke: {error}")
            }
        }
    }
    Err(last)
}
