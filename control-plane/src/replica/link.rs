//! Connections between control planes: mutual TLS, and both ends are the control
//! plane's own identity.

use std::net::SocketAddr;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use weir_mesh::identity::{ALPN_H2, SpiffeId, TrustBundle, client_config, connect_tls};

use crate::control::Control;

/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// A peer that does not answer a ping for this long is gone: a host that vanishes
/// closes no connection.
const PING: Duration = Duration::from_secs(1);

/// Why there is none.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Connects to the mesh listener of another control plane. The certificate is made
/// for this connection.
pub(super) async fn connect(control: &Control, address: SocketAddr) -> Result<Channel, Error> {
    let id = SpiffeId::control_plane(&control.trust_domain)?;
    let svid = control.authority.issue_own(&id)?;
    let bundle = TrustBundle::from_der(&*control.authority.bundle())?;
    let tls = client_config(&svid, &bundle, &id, ALPN_H2)?;
    let endpoint = Endpoint::from_static("http://control-plane")
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(2 * PING)
        .keep_alive_while_idle(true);
    let connecting = endpoint.connect_with_connector(connect_tls(address, tls));
    Ok(tokio::time::timeout(2 * CONNECT, connecting).await??)
}
