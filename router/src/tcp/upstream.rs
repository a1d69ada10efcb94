//! An opaque connection's way to an instance: by weight, then as a stream to its
//! router, or straight to it when it has none.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use weir_mesh::model::Protocol;

use super::flow::{self, Flow, Near, NearBody};
use super::record::Record;
use super::{permit, refuse};
use crate::auth;
use crate::request::body::UpBody;
use crate::table::{ServiceEntry, Table, TcpAction, TcpBackend, VersionEntry};
use crate::upstream::{Failure, Lease, Pending, Pick, Reach, Upstream, pick};
use crate::worker::Worker;

/// Instances that are tried for one connection.
const ATTEMPTS: usize = 4;
/// To reach an instance that has no router, or any host outside.
pub const CONNECT: Duration = Duration::from_secs(2);
/// For a router to have its application take the connection.
const OPEN: Duration = Duration::from_secs(5);

/// What routers say to each other about an opaque stream: a POST whose bodies are
/// the bytes.
pub const PATH: &str = "/weir.tcp.v1";
/// Its content type; also of the answer that accepts it.
pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.weir.tcp");

/// Why a connection never was open.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No snapshot yet.
    #[error("this router has no configuration yet; is the control plane running?")]
    NotReady,
    /// A listener of the gateway that no route is for.
    #[error("no TCPRoute has the listener {0:?} as its parent")]
    NoRoute(String),
    /// A listener that leads to what is no service.
    #[error("no service {0:?} with protocol tcp in the mesh; `weir get services` lists them")]
    NoService(String),
    /// No TLSRoute for a server name.
    #[error("no TLSRoute has the server name {0:?}")]
    NoName(String),
    /// It came to the router's own port, and not by the kernel's redirection.
    #[error("this is the router's own port; connect to the application's")]
    Direct,
    /// Not TLS.
    #[error("the first bytes are no TLS ClientHello with at most 64 KiB")]
    NoHello,
    /// The ClientHello did not come.
    #[error("the ClientHello did not arrive in time")]
    SlowHello,
    /// The client went before it said anything.
    #[error("the client went")]
    Gone,
    /// Over the limit.
    #[error("{0} opaque connections are open already; tcp.maxConnections limits them")]
    TooMany(u32),
    /// Nothing to connect to.
    #[error("no instance of {0} can take the connection")]
    NoInstance(String),
    /// Nothing that was tried took it.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// It may not leave the mesh.
    #[error("{0}")]
    Egress(super::egress::Denied),
    /// A policy of the service forbids it.
    #[error("{0}")]
    Denied(String),
    /// A name that leads nowhere.
    #[error("cannot look up {0:?}: {1}")]
    Lookup(String, String),
}

impl Refused {
    /// The response flag; Envoy's words.
    #[must_use]
    pub fn flag(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotReady => "NC",
            Self::Denied(_) => "RBAC_ACCESS_DENIED",
            Self::NoRoute(_) | Self::NoService(_) | Self::NoName(_) | Self::Direct => "NR",
            Self::NoHello | Self::SlowHello => "DPE",
            Self::Gone => "DC",
            Self::TooMany(_) => "UO",
            Self::NoInstance(_) => "UH",
            Self::Connect(..) => "UF",
            Self::Egress(_) => "ED",
            Self::Lookup(..) => "DF",
        })
    }
}

/// The other side of a connection, ready to take bytes.
enum Far {
    /// A stream to the instance's router.
    Mesh { body: Incoming, near: oneshot::Sender<Near>, lease: Lease, flow: Rc<Flow> },
    /// The instance itself.
    Plain(TcpStream),
}

/// Connects a client to an instance that `action` leads to, and carries bytes
/// until both are done. `prefix` was read from the client already.
pub async fn connect(
    worker: &Rc<Worker>,
    table: Arc<Table>,
    action: Arc<TcpAction>,
    stream: TcpStream,
    prefix: Bytes,
    mut record: Record,
) {
    record.route(action.label.clone(), table.revision());
    let permit = match permit(worker, &table) {
        Ok(permit) => permit,
        Err(refused) => return refuse(stream, record, &refused),
    };
    let idle = table.options.tcp.idle_timeout;
    let (far, pending) = match open(worker, &action, &mut record).await {
        Ok(opened) => opened,
        Err(refused) => return refuse(stream, record, &refused),
    };
    // A connection may live for days: it must not keep an old table with it.
    drop((table, action));
    let (read, write) = stream.into_split();
    let near = Near::new(read, prefix);
    let end = match far {
        Far::Mesh { body, near: sender, lease, flow } => {
            // Its body is with the HTTP/2 connection; gone, the relay sees it.
            let _ = sender.send(near);
            let tell = || record.count(flow.counts().0, flow.counts().1);
            let end = flow::relay(&flow, write, body, idle, tell).await;
            drop(lease);
            end
        }
        Far::Plain(far) => {
            let flow = Flow::new();
            let tell = || record.count(flow.counts().0, flow.counts().1);
            flow::relay_sockets(&flow, (near, write), far, idle, tell).await
        }
    };
    record.ended(end);
    drop((pending, permit));
}

/// Carries bytes between a client and a host outside the mesh.
pub async fn outside(
    worker: &Rc<Worker>,
    table: Arc<Table>,
    near: (TcpStream, Bytes),
    far: TcpStream,
    mut record: Record,
) {
    let (stream, prefix) = near;
    let permit = match permit(worker, &table) {
        Ok(permit) => permit,
        Err(refused) => return refuse(stream, record, &refused),
    };
    record.opened("", "", None);
    let idle = table.options.tcp.idle_timeout;
    drop(table);
    let (read, write) = stream.into_split();
    let flow = Flow::new();
    let tell = || record.count(flow.counts().0, flow.counts().1);
    let near = (Near::new(read, prefix), write);
    let end = flow::relay_sockets(&flow, near, far, idle, tell).await;
    record.ended(end);
    drop(permit);
}

async fn open(
    worker: &Rc<Worker>,
    action: &TcpAction,
    record: &mut Record,
) -> Result<(Far, Pending), Refused> {
    let backend = match action.backends.len() {
        1 => &action.backends[0],
        _ => &action.backends[worker.next_of(&action.splitter)],
    };
    let backend = backend.as_ref().map_err(|why| Refused::NoInstance(why.to_string()))?;
    let service = &backend.service;
    let version = match backend.version {
        Some(version) => version,
        None if service.versions.len() == 1 => 0,
        None => worker.next_of(&service.splitter),
    };
    let mut tried: Vec<u32> = Vec::new();
    let mut last = None;
    while tried.len() < ATTEMPTS {
        let Some((version, upstream)) = next(worker, backend, version, &tried) else { break };
        if !tried.is_empty() {
            record.retried();
        }
        let index = version.endpoints.iter().find(|e| e.id == upstream.id).map(|e| e.index);
        tried.push(index.unwrap_or(u32::MAX));
        let pending = Pending::new(upstream.clone());
        let began = Instant::now();
        match reach(worker, &upstream, service).await {
            Ok(far) => {
                upstream.load.answered(began.elapsed());
                let instance = Some(upstream.id.clone());
                record.opened(service.name.as_str(), version.name.as_str(), instance);
                return Ok((far, pending));
            }
            Err(why) => {
                upstream.load.failed();
                last = Some(Refused::Connect(format!("{}-{}", service.name, version.name), why));
            }
        }
    }
    Err(last.unwrap_or_else(|| {
        let version = &service.versions[version].name;
        Refused::NoInstance(format!("{}-{version}", service.name))
    }))
}

/// The instance for the next try; of another version that gets traffic when the
/// chosen one has none that is well, unless the route names the version.
fn next<'a>(
    worker: &Rc<Worker>,
    backend: &'a TcpBackend,
    version: usize,
    tried: &[u32],
) -> Option<(&'a VersionEntry, Rc<Upstream>)> {
    let service = &backend.service;
    let of = |version: &VersionEntry| pick(version, tried, |e| worker.upstream(e));
    let chosen = &service.versions[version];
    let fallback = match of(chosen) {
        Pick::Good(upstream) => return Some((chosen, upstream)),
        Pick::Panic(upstream) => Some((chosen, upstream)),
        Pick::None => None,
    };
    if backend.version.is_none() {
        let others = service.versions.iter().enumerate();
        for (_, other) in others.filter(|(i, v)| *i != version && v.weight > 0) {
            if let Pick::Good(upstream) = of(other) {
                return Some((other, upstream));
            }
        }
    }
    fallback
}

async fn reach(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    service: &Arc<ServiceEntry>,
) -> Result<Far, String> {
    if upstream.reach != Reach::Mesh {
        // It has no router that could ask: its caller's does, as for requests.
        if let Some(table) = worker.table() {
            auth::connection(worker, &table, service.name.as_str(), &auth::own_identity(worker))?;
        }
        let stream = dial(upstream.address).await.map_err(|error| error.to_string())?;
        return Ok(Far::Plain(stream));
    }
    // In a pod routers take bytes on every port.
    if service.protocol != Protocol::Tcp && worker.shared.config.pod.is_none() {
        return Err(format!("its protocol is not tcp, but it is the backend of a {PATH}"));
    }
    let flow = Flow::new();
    let (near, body) = NearBody::later(flow.clone());
    let request = request(service.name.as_str(), UpBody::Mapped(Box::pin(body)))
        .map_err(|error| error.to_string())?;
    let sent = timeout(OPEN, upstream.pool.send(request)).await;
    let sent = sent.map_err(|_| format!("no answer within {OPEN:?}"))?.map_err(why)?;
    let response = sent.response;
    let accepted = response.status() == StatusCode::OK
        && response.headers().get(header::CONTENT_TYPE) == Some(&CONTENT_TYPE);
    if !accepted {
        let status = response.status();
        if status == StatusCode::FORBIDDEN {
            return Err("its policies deny it to this service".to_owned());
        }
        return Err(format!("its router answers {status}: is the service's protocol tcp there?"));
    }
    Ok(Far::Mesh { body: response.into_body(), near, lease: sent.lease, flow })
}

fn why(failure: Failure) -> String {
    match failure {
        Failure::Connect(error, _) => error.to_string(),
        Failure::Unsent(error, _) | Failure::Refused(error) | Failure::Broken(error) => {
            format!("its router did not take the connection ({error})")
        }
    }
}

fn request(service: &str, body: UpBody) -> Result<Request<UpBody>, http::Error> {
    let uri = Uri::builder().scheme("http").authority(service).path_and_query(PATH).build()?;
    Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(uri)
        .header(header::CONTENT_TYPE, CONTENT_TYPE)
        .body(body)
}

/// Connects in plaintext.
///
/// # Errors
/// The socket's; `TimedOut` after 2 s.
pub async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let connected = timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
