//! Connections whose bytes are nobody's business.
//!
//! Between routers such a connection is one stream of the HTTP/2 connections that
//! are there anyway (`docs/decisions/0005-opaque-tcp.md`): identity, pools and
//! flow control are those of requests.

mod detect;
pub mod egress;
mod flow;
mod hello;
mod inbound;
mod outside;
mod record;
mod redirected;
mod upstream;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use detect::{Opens, opens};
pub use inbound::{
    handle as handle_inbound, is_for_bytes, refuse as refuse_inbound, serve as serve_inbound,
};
pub use outside::{http as serve_outside, is_meant as is_outside};
pub use redirected::{original, serve as serve_redirected};

use crate::connection::{Closing, Side, own_id, requested};
use crate::table::Table;
use crate::worker::Worker;
use hello::Hello;
use record::Record;
use upstream::Refused;

/// For the whole ClientHello of a connection that is passed through.
const HELLO: Duration = Duration::from_secs(5);

/// What a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    Tcp,
    /// TLS, routed by server name and passed through.
    Tls,
    /// What the listeners of Gateways at its port say now.
    Listener,
}

/// A listener for opaque connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The service that it leads to; at the gateway, the listener's own name.
    pub name: String,
    /// What it takes.
    pub kind: Kind,
    /// Where it listens.
    pub port: u16,
}

/// How many opaque connections a worker has.
#[derive(Debug, Default)]
pub struct Open(Cell<u32>);

/// One of them.
struct Permit(Rc<Worker>);

impl Permit {
    /// None when there are too many.
    fn take(worker: &Rc<Worker>, most: u32) -> Option<Self> {
        let open = &worker.tcp_open.0;
        if open.get() >= most {
            return None;
        }
        open.set(open.get() + 1);
        Some(Self(worker.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let open = &self.0.tcp_open.0;
        open.set(open.get().saturating_sub(1));
    }
}

/// Serves a connection that came by a listener of its own until it ends.
pub async fn serve(
    worker: Rc<Worker>,
    side: Side,
    listen: Arc<Listen>,
    stream: TcpStream,
    closing: Closing,
) {
    let _ = stream.set_nodelay(true);
    let mut record = Record::begin(&worker, side, client(&worker, side));
    let Some(table) = worker.table() else {
        return refuse(stream, record, &Refused::NotReady);
    };
    match (listen.kind, side) {
        (Kind::Tcp, Side::Gateway) => match table.tcp.listener(&listen.name, listen.port) {
            Some(action) => {
                let action = action.clone();
                upstream::connect(&worker, table, action, stream, Bytes::new(), record).await;
            }
            None => refuse(stream, record, &Refused::NoRoute(listen.name.clone())),
        },
        (Kind::Tcp, _) => match table.tcp.service(&listen.name) {
            Some(action) => {
                let action = action.clone();
                upstream::connect(&worker, table, action, stream, Bytes::new(), record).await;
            }
            None => refuse(stream, record, &Refused::NoService(listen.name.clone())),
        },
        (Kind::Tls | Kind::Listener, _) => {
            let (name, stream, bytes) = match server_name(stream, closing).await {
                Ok(read) => read,
                Err((stream, refused)) => return refuse(stream, record, &refused),
            };
            record.server_name(name.as_deref());
            let named = name.as_deref();
            let at_port = table.listeners.at(listen.port);
            let listener = at_port.and_then(|port| port.id(named)).map_or(&*listen.name, |id| id);
            let found = named.and_then(|n| table.tcp.server_name(listener, listen.port, n));
            match found {
                Some(action) => {
                    let action = action.clone();
                    upstream::connect(&worker, table, action, stream, bytes, record).await;
                }
                None => {
                    let refused = Refused::NoName(name.unwrap_or_default());
                    alert(stream, &hello::UNRECOGNIZED_NAME).await;
                    record.refused(&refused);
                }
            }
        }
    }
}

/// Whose connections come by a listener.
fn client(worker: &Worker, side: Side) -> Arc<str> {
    if side == Side::Outbound { own_id(worker) } else { Arc::from("") }
}

fn refuse(stream: TcpStream, record: Record, refused: &Refused) {
    record.refused(refused);
    flow::reset(stream.into_split().1);
}

/// Says why, in TLS's words, and closes. The rest of what the client sends must
/// not turn the answer into a reset.
async fn alert(mut stream: TcpStream, alert: &[u8]) {
    let said = async {
        stream.write_all(alert).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(Duration::from_secs(1), said).await;
}

/// Reads a ClientHello: the name that it asks for, and all that was read.
async fn server_name(
    mut stream: TcpStream,
    closing: Closing,
) -> Result<(Option<String>, TcpStream, Bytes), (TcpStream, Refused)> {
    let mut bytes = BytesMut::new();
    let reading = async {
        loop {
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return Err(Refused::Gone),
                Ok(_) => {}
            }
            match hello::parse(&bytes) {
                Hello::Whole(name) => return Ok(name),
                Hello::Other => return Err(Refused::NoHello),
                Hello::Part if bytes.len() >= hello::LIMIT => return Err(Refused::NoHello),
                Hello::Part => {}
            }
        }
    };
    let read = tokio::select! {
        read = timeout(HELLO, reading) => read.unwrap_or(Err(Refused::SlowHello)),
        () = requested(closing) => Err(Refused::Gone),
    };
    match read {
        Ok(name) => Ok((name, stream, bytes.freeze())),
        Err(refused) => Err((stream, refused)),
    }
}

/// The limit of a worker's opaque connections, or why there cannot be one more.
fn permit(worker: &Rc<Worker>, table: &Table) -> Result<Permit, Refused> {
    let most = table.options.tcp.max_connections;
    Permit::take(worker, most).ok_or(Refused::TooMany(most))
}
