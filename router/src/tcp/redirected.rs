//! Connections that the kernel redirected to the outbound listener (`REDIRECT` of
//! nftables or iptables). Where they were meant to go says what they are.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;
use weir_mesh::model::Protocol;

use super::detect::{Speaks, detect, is_tls};
use super::egress::{self, Denied};
use super::record::Record;
use super::upstream::{self, Refused, dial};
use super::{alert, hello, refuse, server_name};
use crate::connection::{Closing, HANDSHAKE, Side, own_id, requested};
use crate::table::{Meant, Places, Table, TcpAction};
use crate::worker::Worker;

/// Hosts outside that are tried for one connection.
const ATTEMPTS: usize = 3;

/// Where a connection was meant to go; none when it was meant for us.
#[must_use]
pub fn original(stream: &TcpStream) -> Option<SocketAddr> {
    let local = stream.local_addr().ok()?;
    let socket = SockRef::from(stream);
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        // IPv4 comes to such a socket as well.
        SocketAddr::V6(_) => socket.original_dst_v6().or_else(|_| socket.original_dst_v4()),
    };
    // Without connection tracking there is no such address, and no redirection.
    let original = original.ok()?.as_socket()?;
    let place = |a: SocketAddr| (a.ip().to_canonical(), a.port());
    (place(original) != place(local)).then_some(original)
}

/// Serves one until it ends. Gives it back when it speaks HTTP: then requests say
/// where they go, unless the address does.
pub async fn serve(
    worker: &Rc<Worker>,
    stream: TcpStream,
    original: SocketAddr,
    closing: Closing,
) -> Option<(TcpStream, Option<SocketAddr>)> {
    let mut record = Record::begin(worker, Side::Outbound, own_id(worker));
    record.meant_for(original);
    let Some(table) = worker.table() else {
        refuse(stream, record, &Refused::NotReady);
        return None;
    };
    let way = match &table.places {
        Some(places) => in_pod(&table, places, &stream, original, closing.clone()).await,
        None => {
            let owner = table.tcp.owner(original).filter(|s| s.protocol == Protocol::Tcp);
            let opaque = owner.and_then(|service| table.tcp.service(service.name.as_str()));
            // A port that is declared opaque: its server may speak first.
            opaque.map_or(Way::ByName, |action| Way::Bytes(action.clone()))
        }
    };
    match way {
        Way::Requests => {
            record.left_to_requests();
            return Some((stream, Some(original)));
        }
        Way::Bytes(action) => {
            upstream::connect(worker, table, action, stream, Bytes::new(), record).await;
        }
        Way::Out => {
            let host = original.ip().to_canonical().to_string();
            leave(worker, table, (stream, Bytes::new()), &host, original.port(), record).await;
        }
        Way::Gone => record.refused(&Refused::Gone),
        Way::ByName => {
            let http = by_name(worker, table, stream, original, record, closing).await;
            return http.map(|stream| (stream, None));
        }
    }
    None
}

/// Finds out what one speaks, and by that where it goes. Gives it back when it speaks
/// HTTP.
async fn by_name(
    worker: &Rc<Worker>,
    table: Arc<Table>,
    stream: TcpStream,
    original: SocketAddr,
    mut record: Record,
    closing: Closing,
) -> Option<TcpStream> {
    match detect(&stream, table.options.tcp.detection_timeout).await {
        Err(_) => record.refused(&Refused::Gone),
        Ok(Speaks::Http) => {
            record.left_to_requests();
            return Some(stream);
        }
        Ok(Speaks::Opaque) => {
            let host = original.ip().to_canonical().to_string();
            leave(worker, table, (stream, Bytes::new()), &host, original.port(), record).await;
        }
        Ok(Speaks::Tls) => match server_name(stream, closing).await {
            Err((stream, refused)) => refuse(stream, record, &refused),
            Ok((name, stream, bytes)) => {
                record.server_name(name.as_deref());
                let ip = original.ip().to_canonical().to_string();
                let host = name.unwrap_or(ip);
                leave(worker, table, (stream, bytes), &host, original.port(), record).await;
            }
        },
    }
    None
}

/// What becomes of a connection.
enum Way {
    /// Its requests go where it was meant to.
    Requests,
    /// Its bytes do.
    Bytes(Arc<TcpAction>),
    /// Out of the mesh, as it is.
    Out,
    /// It says by itself where it may go: nothing leaves by address alone.
    ByName,
    /// Nowhere.
    Gone,
}

async fn in_pod(
    table: &Table,
    places: &Places,
    stream: &TcpStream,
    original: SocketAddr,
    closing: Closing,
) -> Way {
    let Some(meant) = places.find(original) else {
        let open = table.options.egress.as_ref().is_some_and(|egress| egress.allow_by_default);
        return if open { Way::Out } else { Way::ByName };
    };
    if meant.service().protocol != Protocol::Tcp {
        let tls = tokio::select! {
            tls = is_tls(stream, HANDSHAKE) => tls,
            () = requested(closing) => return Way::Gone,
        };
        match tls {
            Err(_) => return Way::Gone,
            Ok(false) => return Way::Requests,
            // Not what the port is declared to be: its bytes are for the application.
            Ok(true) => {}
        }
    }
    let routed = match meant {
        Meant::Service(service) => table.tcp.service(service.name.as_str()),
        Meant::Instance(..) => None,
    };
    Way::Bytes(routed.cloned().unwrap_or_else(|| Arc::new(places.bytes(meant))))
}

/// Out of the mesh, if that is allowed.
async fn leave(
    worker: &Rc<Worker>,
    table: Arc<Table>,
    near: (TcpStream, Bytes),
    host: &str,
    port: u16,
    record: Record,
) {
    let found = match &table.options.egress {
        Some(policy) => egress::find(worker, policy, host, port).await,
        None => {
            egress::count(worker, "denied");
            Err(Refused::Egress(Denied::without_policy(host.to_owned(), port)))
        }
    };
    let far = match found {
        Ok(addresses) => first(&addresses, host).await,
        Err(refused) => Err(refused),
    };
    match far {
        Ok(far) => upstream::outside(worker, table, near, far, record).await,
        Err(refused) if matches!(refused, Refused::Egress(_)) && !near.1.is_empty() => {
            record.refused(&refused);
            alert(near.0, &hello::ACCESS_DENIED).await;
        }
        Err(refused) => refuse(near.0, record, &refused),
    }
}

async fn first(addresses: &[SocketAddr], host: &str) -> Result<TcpStream, Refused> {
    let mut last = String::new();
    for address in addresses.iter().take(ATTEMPTS) {
        match dial(*address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.to_string(),
        }
    }
    Err(Refused::Connect(host.to_owned(), last))
}
