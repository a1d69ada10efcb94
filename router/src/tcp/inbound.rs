//! An opaque stream that another router sent by mTLS, for the application beside
//! us.

use std::rc::Rc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::flow::{self, Flow, Near, NearBody};
use super::permit;
use super::record::Record;
use super::upstream::{CONTENT_TYPE, PATH, Refused, dial};
use crate::auth;
use crate::connection::Connected;
use crate::request::answer::DownBody;
use crate::worker::Worker;

/// Answers the request that opens a stream: once the application has taken the
/// connection, and not before.
///
/// # Errors
/// REFUSED_STREAM (RFC 9113 §8.7) when the application got nothing of it: the
/// router that sent it may try another instance.
pub async fn handle(
    worker: Rc<Worker>,
    connected: Rc<Connected>,
    request: Request<Incoming>,
) -> Result<Response<DownBody>, h2::Error> {
    if !is_stream(&worker, &request) {
        let mut response = Response::new(DownBody::full(
            "this service speaks opaque TCP, not HTTP; connect to it by a TCP listener of the \
             router\n",
        ));
        *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
        return Ok(response);
    }
    let mut record = Record::begin(&worker, connected.side, connected.peer.clone());
    let refused = |record: Record, refused: &Refused| {
        record.refused(refused);
        Err(h2::Reason::REFUSED_STREAM.into())
    };
    let Some(table) = worker.table() else { return refused(record, &Refused::NotReady) };
    let own = worker.shared.config.service.as_str();
    if let Err(why) = auth::connection(&worker, &table, own, &connected.peer) {
        record.refused(&Refused::Denied(why));
        let mut response = Response::new(DownBody::empty());
        *response.status_mut() = StatusCode::FORBIDDEN;
        return Ok(response);
    }
    let permit = match permit(&worker, &table) {
        Ok(permit) => permit,
        Err(why) => return refused(record, &why),
    };
    let config = &worker.shared.config;
    let app = match dial(config.app()).await {
        Ok(app) => app,
        Err(error) => {
            let why = Refused::Connect("the application".to_owned(), error.to_string());
            return refused(record, &why);
        }
    };
    record.opened(config.service.as_str(), config.version.as_str(), None);
    let idle = table.options.tcp.idle_timeout;
    let (read, write) = app.into_split();
    let flow = Flow::new();
    let body = NearBody::new(Near::new(read, Bytes::new()), flow.clone());
    tokio::task::spawn_local(async move {
        let tell = || record.count(flow.counts().1, flow.counts().0);
        let end = flow::relay(&flow, write, request.into_body(), idle, tell).await;
        record.ended(end);
        drop(permit);
    });
    let mut response = Response::new(DownBody::mapped(body));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    Ok(response)
}

/// Whether a request opens a stream to our application: nothing else may come to
/// an application that speaks no HTTP.
fn is_stream(worker: &Worker, request: &Request<Incoming>) -> bool {
    let host = request.uri().host().unwrap_or_default();
    *request.method() == Method::POST
        && request.uri().path() == PATH
        && request.headers().get(header::CONTENT_TYPE) == Some(&CONTENT_TYPE)
        && host == worker.shared.config.service.as_str()
}
