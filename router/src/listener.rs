//! Accepting: one socket for each worker on the same port (SO_REUSEPORT), so
//! that a connection stays on the thread that took it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use weir_mesh::shutdown::Drain;

use crate::connection::{self, Closing, Side};
use crate::gateway;
use crate::tcp::{self, Listen};
use crate::worker::Worker;

const BACKLOG: i32 = 1024;
/// Connections of one listener of one worker.
const CONNECTIONS: usize = 10_000;

/// Binds `count` sockets to one address. Port 0 picks a free port, the same
/// for all.
///
/// # Errors
/// What the system says, with the address.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    // Without SO_REUSEPORT first: a port that another program has is an error,
    // not something to share with it.
    let first = socket(address, false).map_err(named)?;
    let address = first.local_addr()?;
    if count <= 1 {
        return Ok(vec![first]);
    }
    drop(first);
    (0..count).map(|_| socket(address, true).map_err(named)).collect()
}

/// One socket, which others may share the port of.
pub(crate) fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until `closing`, and serves each connection in a task of its own.
pub async fn accept(
    worker: Rc<Worker>,
    side: Side,
    opaque: Option<Arc<Listen>>,
    listener: TcpListener,
    closing: Closing,
    drain: Drain,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    let mut over = closing.clone();
    loop {
        // Over the limit, connections wait in the backlog.
        let Ok(permit) = permits.clone().acquire_owned().await else { return Ok(()) };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = over.wait_for(|closing| *closing) => return Ok(()),
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a client that went at once: neither
                // ends the listener.
                tracing::warn!(%error, ?side, "accept failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let (worker, closing, guard) = (worker.clone(), closing.clone(), drain.guard());
        let opaque = opaque.clone();
        tokio::task::spawn_local(async move {
            worker.activity.note();
            match opaque {
                None => connection::serve(worker.clone(), side, stream, peer, closing).await,
                // In a box: requests' connections are many, and would pay.
                Some(listen) if listen.kind == tcp::Kind::Listener => {
                    Box::pin(gateway::serve(worker.clone(), listen.port, stream, peer, closing))
                        .await;
                }
                Some(listen) => {
                    Box::pin(tcp::serve(worker.clone(), side, listen, stream, closing)).await;
                }
            }
            worker.activity.note();
            drop(permit);
            drop(guard);
        });
    }
}
