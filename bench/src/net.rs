//! Sockets and their limits.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};

/// After an accept that failed, most likely for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(20);

/// Lets this process open as many files as it is allowed to.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_err() {
        eprintln!("weir-bench: the limit of open files stays at {:?}", limit.current);
    }
}

/// Listens, and tells the ready file where.
pub async fn listen(address: SocketAddr, ready_file: Option<&Path>) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("--listen {address}: {e}")))?;
    let address = listener.local_addr()?;
    if let Some(path) = ready_file {
        weir_mesh::ready::write(path, &serde_json::json!({ "listen": address }).to_string())?;
    }
    eprintln!("weir-bench: listening on {address}");
    Ok(listener)
}

/// The next connection, without Nagle's delay.
pub async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // It fails only for a connection that is gone already.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                eprintln!("weir-bench: accept: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Connects, without Nagle's delay.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
