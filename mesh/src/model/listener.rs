//! Listeners of the Gateway API's Gateways.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::HostPattern;

/// What a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2 in plaintext.
    Http,
    /// The same by TLS, which ends here.
    Https,
    /// TLS that is passed through, by server name.
    Tls,
    /// Bytes.
    Tcp,
}

/// A server certificate and its key. `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    /// DER, leaf first; never empty.
    pub chain: Vec<Bytes>,
    /// DER: PKCS#8, PKCS#1 or SEC1.
    pub key: Bytes,
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// One listener of a Gateway. Several may share a port: the server name (TLS) or
/// the host (HTTP) then picks the one that names it most exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `NAMESPACE/GATEWAY/LISTENER`, unique in the mesh.
    pub id: Arc<str>,
    /// Never 0.
    pub port: u16,
    /// What it takes.
    pub protocol: ListenerProtocol,
    /// None: every host.
    pub hostname: Option<HostPattern>,
    /// Never empty for [`ListenerProtocol::Https`].
    pub certificates: Vec<ServerCertificate>,
}
