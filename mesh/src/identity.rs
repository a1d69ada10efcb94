//! Who a peer is: SPIFFE X.509-SVIDs over TLS 1.3.
//!
//! An identity comes from a certificate and from nowhere else. Every
//! configuration here is TLS 1.3 only, keeps no sessions (a resumed session
//! would outlive the certificate that opened it), and uses [`provider`], never
//! a process-wide default.

mod bundle;
mod config;
mod connect;
mod secret;
mod spiffe;
mod svid;
mod verify;

#[cfg(test)]
mod tests;

pub use bundle::TrustBundle;
pub use config::{
    ALPN_H2, ALPN_MESH, MESH_PROTOCOL, bootstrap_client_config, certified_key, client_config,
    outside_server_config, provider, server_config, server_config_optional_client,
};
pub use connect::{TlsConnector, connect_tls};
pub use secret::Secret;
pub use spiffe::{SpiffeId, SpiffeIdError};
pub use svid::{Svid, renewal_at};
pub use verify::peer_id;

/// Why a certificate, key, bundle or configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The peer, or the file, has no certificate.
    #[error("there is no certificate")]
    NoCertificate,
    /// Not a certificate that can be read.
    #[error("certificate {index} cannot be read: {reason}")]
    Certificate {
        /// Its place in the chain or bundle, from 0.
        index: usize,
        /// What the parser says.
        reason: String,
    },
    /// X.509-SVID section 2 wants exactly one URI.
    #[error("the certificate has {0} URI names; an X.509-SVID has exactly one")]
    UriNames(usize),
    /// Its URI is no SPIFFE id.
    #[error(transparent)]
    SpiffeId(#[from] SpiffeIdError),
    /// X.509-SVID section 5.2: a leaf signs nothing.
    #[error("the certificate is an authority's; a workload's must not be able to sign others")]
    Authority,
    /// A chain that is good, but of another trust domain.
    #[error("{id} is not of trust domain {expected}")]
    TrustDomain {
        /// Who it is.
        id: SpiffeId,
        /// Which domain was wanted.
        expected: String,
    },
    /// A chain that is good, but someone else's.
    #[error("the peer is {id}, expected {expected}")]
    Unexpected {
        /// Who it is.
        id: SpiffeId,
        /// Who was wanted.
        expected: SpiffeId,
    },
    /// The key is missing, of an unknown kind, or another certificate's.
    #[error("private key: {0}")]
    Key(&'static str),
    /// Not PEM (RFC 7468).
    #[error("PEM: {0}")]
    Pem(String),
    /// A bundle must hold at least one root.
    #[error("the trust bundle holds no root")]
    NoRoot,
    /// What rustls refuses.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A file; the message names its path.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}
