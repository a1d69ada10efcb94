//! Connections that come to a pod of Kubernetes: the kernel redirects them all, and
//! their first bytes say whether a router of the mesh or anybody else sends them.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::front::Front;
use super::{Closing, Connected, HANDSHAKE, Side, requested, serve_http, serve_inbound};
use crate::socket::Socket;
use crate::tcp::{self, Opens};
use crate::worker::Worker;

/// Serves one until it ends.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: Socket,
    peer_address: SocketAddr,
    closing: Closing,
) -> io::Result<()> {
    let to = tcp::original(stream.get_ref());
    let (Some(to), Some(table)) = (to, worker.table()) else {
        tcp::refuse_inbound(&worker, stream.into_inner(), to);
        return Ok(());
    };
    let http = table.places.as_ref().is_some_and(|places| places.takes_http(to.port()));
    // Where HTTP is spoken no server speaks first, and clients keep connections at hand.
    let bound = if http { HANDSHAKE } else { table.options.tcp.detection_timeout };
    drop(table);
    let opens = tokio::select! {
        opens = tcp::opens(stream.get_ref(), bound) => opens?,
        () = requested(closing.clone()) => return Ok(()),
    };
    match opens {
        Opens::Gone => Ok(()),
        Opens::Mesh => serve_inbound(worker, stream, peer_address, Some(to), closing).await,
        Opens::Other if http => {
            let nobody = Arc::from("");
            let connected = Connected::new(Side::Inbound, peer_address, nobody, None, Some(to));
            serve_http(worker, connected, Front::Plain(stream), None, closing).await
        }
        // The application's own TLS, or what nobody looks at.
        Opens::Tls | Opens::Other => {
            tcp::serve_inbound(&worker, stream.into_inner(), to).await;
            Ok(())
        }
    }
}
