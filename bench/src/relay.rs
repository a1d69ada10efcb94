//! A plain relay of bytes: what a proxy that looks at nothing would cost.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use weir_mesh::shutdown::Shutdown;

use crate::net;

/// Of each direction of a connection, in bytes.
const BUFFER: usize = 64 * 1024;

/// What `weir-bench relay` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Where to listen; port 0 takes a free one (see --ready-file)
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Where every connection goes
    #[arg(long, value_name = "IP:PORT")]
    to: SocketAddr,
    /// Gets {"listen": "IP:PORT"} when connections are taken
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// What a relay says when it is stopped.
#[derive(Serialize)]
pub struct Report {
    connections: u64,
}

/// Relays until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot listen.
pub async fn run(options: Options) -> io::Result<Report> {
    net::raise_file_limit();
    let shutdown = Shutdown::on_signals()?;
    let listener = net::listen(options.listen, options.ready_file.as_deref()).await?;
    let mut connections = 0;
    loop {
        tokio::select! {
            client = net::accept(&listener) => {
                connections += 1;
                // A connection that breaks is the other side's to report.
                tokio::spawn(async move { relay(client, options.to).await.ok() });
            }
            () = shutdown.requested() => return Ok(Report { connections }),
        }
    }
}

async fn relay(mut client: TcpStream, to: SocketAddr) -> io::Result<(u64, u64)> {
    let mut server = net::connect(to).await?;
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await
}
