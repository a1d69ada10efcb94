//! Whether the application beside us takes connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// Between checks while it is well.
const WELL: Duration = Duration::from_secs(1);
/// Between checks while it is not: it may come up any moment.
const ILL: Duration = Duration::from_millis(50);
const CONNECT: Duration = Duration::from_secs(1);

/// Checks for ever; tells `healthy` of each change.
pub async fn check(app: SocketAddr, healthy: watch::Sender<bool>) {
    loop {
        let up = matches!(timeout(CONNECT, TcpStream::connect(app)).await, Ok(Ok(_)));
        healthy.send_if_modified(|healthy| {
            let changed = *healthy != up;
            *healthy = up;
            changed
        });
        tokio::time::sleep(if up { WELL } else { ILL }).await;
    }
}
