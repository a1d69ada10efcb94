//! Bytes for the application beside us: a stream that another router sent by mTLS, or
//! in a pod a connection in plaintext.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use weir_mesh::model::Protocol;

use super::flow::{self, Flow, Near, NearBody};
use super::permit;
use super::record::Record;
use super::upstream::{CONTENT_TYPE, PATH, Refused, dial};
use crate::auth;
use crate::connection::{Connected, Side};
use crate::request::answer::DownBody;
use crate::table::Table;
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
    if !is_stream(&worker, &connected, &request) {
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
    if let Err(why) = allowed(&worker, &table, connected.original, &connected.peer) {
        record.refused(&why);
        let mut response = Response::new(DownBody::empty());
        *response.status_mut() = StatusCode::FORBIDDEN;
        return Ok(response);
    }
    let permit = match permit(&worker, &table) {
        Ok(permit) => permit,
        Err(why) => return refused(record, &why),
    };
    let to = connected.original.unwrap_or(worker.shared.config.app());
    let app = match dial(to).await {
        Ok(app) => app,
        Err(error) => return refused(record, &away(&error)),
    };
    let host = request.uri().host().unwrap_or_default();
    opened(&worker, &table, connected.original, host, &mut record);
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

/// Whether a request is for [`handle`]: it opens a stream, or the application speaks
/// no HTTP.
pub fn is_for_bytes<B>(worker: &Worker, connected: &Connected, request: &Request<B>) -> bool {
    let Some(to) = connected.original else {
        return worker.shared.config.app_protocol == Protocol::Tcp;
    };
    let is_tcp = |table: &Table| {
        let port = table.places.as_ref().and_then(|places| places.port(to.port()));
        port.is_some_and(|port| port.protocol == Protocol::Tcp)
    };
    opens_stream(request) || worker.shared.table.load().as_deref().is_some_and(is_tcp)
}

/// Serves a connection to a pod in plaintext, whoever made it, until it ends.
pub async fn serve(worker: &Rc<Worker>, stream: TcpStream, to: SocketAddr) {
    let mut record = Record::begin(worker, Side::Inbound, Arc::from(""));
    record.meant_for(to);
    let Some(table) = worker.table() else {
        return super::refuse(stream, record, &Refused::NotReady);
    };
    let taken = allowed(worker, &table, Some(to), "").and_then(|()| permit(worker, &table));
    let permit = match taken {
        Ok(permit) => permit,
        Err(why) => return super::refuse(stream, record, &why),
    };
    let app = match dial(to).await {
        Ok(app) => app,
        Err(error) => return super::refuse(stream, record, &away(&error)),
    };
    opened(worker, &table, Some(to), "", &mut record);
    let idle = table.options.tcp.idle_timeout;
    drop(table);
    let flow = Flow::new();
    let tell = || record.count(flow.counts().1, flow.counts().0);
    let (read, write) = app.into_split();
    // The application is the near side, as it is to streams.
    let near = (Near::new(read, Bytes::new()), write);
    let end = flow::relay_sockets(&flow, near, stream, idle, tell).await;
    record.ended(end);
    drop(permit);
}

/// Refuses a connection to a pod that was not redirected (no `to`), or came too early.
pub fn refuse(worker: &Rc<Worker>, stream: TcpStream, to: Option<SocketAddr>) {
    let record = Record::begin(worker, Side::Inbound, Arc::from(""));
    let why = if to.is_some() { Refused::NotReady } else { Refused::Direct };
    super::refuse(stream, record, &why);
}

/// Asks about bytes from `peer`.
fn allowed(
    worker: &Rc<Worker>,
    table: &Table,
    to: Option<SocketAddr>,
    peer: &str,
) -> Result<(), Refused> {
    for own in table.owners(to, worker.shared.config.service.as_str()) {
        auth::connection(worker, table, own, peer).map_err(Refused::Denied)?;
    }
    let port = to.and_then(|to| table.places.as_ref()?.port(to.port()));
    let Some(port) = port.filter(|port| port.protocol != Protocol::Tcp) else { return Ok(()) };
    // What is asked about each request must not be passed by, by hiding requests.
    let guards = table.guards.as_deref();
    let mut names = port.services.iter().map(|service| service.name.as_str());
    let asks = |name| guards.is_some_and(|guards| guards.wants_tokens(name));
    if !port.limits.is_empty() || names.any(asks) {
        let why = "policies of this service limit its requests or want tokens of them, so only \
                   HTTP may come, and no TLS or other bytes";
        return Err(Refused::Denied(why.to_owned()));
    }
    Ok(())
}

fn away(error: &std::io::Error) -> Refused {
    Refused::Connect("the application".to_owned(), error.to_string())
}

/// `host` is what the other router calls the service.
fn opened(worker: &Worker, table: &Table, to: Option<SocketAddr>, host: &str, record: &mut Record) {
    let config = &worker.shared.config;
    let named = table.named(to, host, None).map(|service| service.name.as_str());
    record.opened(named.unwrap_or(config.service.as_str()), config.version.as_str(), None);
}

/// Whether a request opens a stream to our application: nothing else may come to
/// an application that speaks no HTTP.
fn is_stream(worker: &Worker, connected: &Connected, request: &Request<Incoming>) -> bool {
    let host = request.uri().host().unwrap_or_default();
    let ours = connected.original.is_some() || host == worker.shared.config.service.as_str();
    ours && opens_stream(request)
}

fn opens_stream<B>(request: &Request<B>) -> bool {
    *request.method() == Method::POST
        && request.uri().path() == PATH
        && request.headers().get(header::CONTENT_TYPE) == Some(&CONTENT_TYPE)
}
