//! What gateways listen on as the snapshot says: the listeners of the Gateway API's
//! Gateways. They come and go while the router runs; connections that are open when
//! one goes finish what they have begun.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use weir_mesh::model::ListenerProtocol;
use weir_mesh::shutdown::Drain;

use crate::connection::{self, Closing, Side};
use crate::listener;
use crate::tcp::{self, Kind, Listen};
use crate::worker::Worker;

/// Before a port that could not be bound is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Keeps one worker's sockets as the table in use wants them, until `closing`.
pub async fn keep(worker: Rc<Worker>, mut closing: Closing, drain: Drain) {
    let mut open: BTreeMap<u16, watch::Sender<bool>> = BTreeMap::new();
    let mut installed = worker.shared.installed.subscribe();
    loop {
        installed.mark_unchanged();
        let wanted: Vec<u16> = worker
            .table()
            .map(|table| table.listeners.ports().map(|(port, _)| port).collect())
            .unwrap_or_default();
        open.retain(|port, stop| {
            let stays = wanted.contains(port);
            if !stays {
                stop.send_replace(true);
            }
            stays
        });
        let mut failed = false;
        for port in wanted {
            if open.contains_key(&port) {
                continue;
            }
            match bind(port) {
                Ok(socket) => drop(open.insert(port, accept(&worker, port, socket, &drain))),
                Err(error) => {
                    failed = true;
                    tracing::error!(port, %error, "a Gateway's listener cannot be opened");
                }
            }
        }
        tokio::select! {
            _ = installed.changed() => {}
            () = tokio::time::sleep(AGAIN), if failed => {}
            _ = closing.wait_for(|closing| *closing) => {
                for stop in open.values() {
                    stop.send_replace(true);
                }
                return;
            }
        }
    }
}

/// All workers share the port. IPv4 comes by the same socket.
fn bind(port: u16) -> std::io::Result<TcpListener> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    listener::socket(any, true).or_else(|_| listener::socket(([0, 0, 0, 0], port).into(), true))
}

fn accept(
    worker: &Rc<Worker>,
    port: u16,
    socket: TcpListener,
    drain: &Drain,
) -> watch::Sender<bool> {
    let (stop, stopped) = watch::channel(false);
    let listen = Arc::new(Listen { name: port.to_string(), kind: Kind::Listener, port });
    let (worker, drain) = (worker.clone(), drain.clone());
    tokio::task::spawn_local(async move {
        let side = Side::Gateway;
        let accepting = listener::accept(worker, side, Some(listen), socket, stopped, drain);
        if let Err(error) = accepting.await {
            tracing::error!(port, %error, "a Gateway's listener ended");
        }
    });
    stop
}

/// Serves a connection as the listeners of its port say now.
pub async fn serve(
    worker: Rc<Worker>,
    port: u16,
    stream: TcpStream,
    peer: SocketAddr,
    closing: Closing,
) {
    let Some(table) = worker.table() else { return };
    let Some(at) = table.listeners.at(port) else { return };
    let listen = |kind| Arc::new(Listen { name: name(at, port), kind, port });
    match at.protocol {
        ListenerProtocol::Http => {
            connection::serve_listener(worker, port, None, stream, peer, closing).await;
        }
        ListenerProtocol::Https => {
            let tls = at.tls.clone().map(Into::into);
            connection::serve_listener(worker, port, tls, stream, peer, closing).await;
        }
        ListenerProtocol::Tls => {
            tcp::serve(worker, Side::Gateway, listen(Kind::Tls), stream, closing).await;
        }
        ListenerProtocol::Tcp => {
            tcp::serve(worker, Side::Gateway, listen(Kind::Tcp), stream, closing).await;
        }
    }
}

/// The listener of a port that takes bytes: there is one.
fn name(at: &crate::table::Port, port: u16) -> String {
    at.id(None).map_or_else(|| port.to_string(), ToString::to_string)
}
