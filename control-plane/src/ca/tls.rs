//! The mesh listener's TLS. A client certificate is checked, but not required: a
//! router that joins has none yet.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use weir_mesh::identity::{ALPN_H2, SpiffeId, TrustBundle, server_config_optional_client};

use super::{Authority, CaError};

/// The control plane's own certificate, renewed without touching a connection.
pub struct OwnCertificate {
    id: SpiffeId,
    current: RwLock<Arc<ServerConfig>>,
}

impl OwnCertificate {
    /// Has the first certificate made.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn new(authority: &Authority, id: SpiffeId) -> Result<Self, CaError> {
        let config = server_config(authority, &id)?;
        Ok(Self { id, current: RwLock::new(config) })
    }

    /// What the next connection is accepted with.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has a new certificate made, and trusts what is trusted now.
    ///
    /// # Errors
    /// [`CaError`]; the old one stays.
    pub fn renew(&self, authority: &Authority) -> Result<(), CaError> {
        let config = server_config(authority, &self.id)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Renews at two thirds of each certificate's life and whenever the roots to
    /// trust change, and forgets retired roots in time. Never returns; a failure is
    /// reported and tried again.
    ///
    /// A new root is trusted before it signs, so the certificate of the moment is
    /// still the old root's when that retires, and stays for two thirds of its life:
    /// a router that was away during the change knows only the old root, and can come
    /// back to learn the new one.
    pub async fn keep(&self, authority: &Authority, report: impl Fn(&CaError)) {
        let mut bundle = authority.watch_bundle();
        let due = authority.lifetime() * 2 / 3;
        let mut wait = due;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = bundle.changed() => {}
            }
            let renewed = authority.expire_roots().and_then(|()| self.renew(authority));
            wait = match renewed {
                Ok(()) => due,
                Err(error) => {
                    report(&error);
                    Duration::from_secs(1)
                }
            };
        }
    }
}

fn server_config(authority: &Authority, id: &SpiffeId) -> Result<Arc<ServerConfig>, CaError> {
    let bundle = TrustBundle::from_der(&*authority.bundle())?;
    Ok(server_config_optional_client(&authority.issue_own(id)?, &bundle, ALPN_H2)?)
}
