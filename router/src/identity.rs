//! The certificate in use, and the TLS made from it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weir_mesh::identity::{
    ALPN_MESH, IdentityError, SpiffeId, Svid, TrustBundle, client_config, server_config,
};

/// Who this router is. Replaced whole when a certificate is renewed;
/// connections that are open stay.
#[derive(Default)]
pub struct Identity(ArcSwapOption<State>);

struct State {
    svid: Svid,
    bundle: TrustBundle,
    acceptor: TlsAcceptor,
    /// By peer; asked for only when a connection is opened.
    connectors: Mutex<HashMap<SpiffeId, TlsConnector>>,
}

impl Identity {
    /// Puts a certificate into use.
    ///
    /// # Errors
    /// When TLS cannot be made from it; the old one stays in use.
    pub fn replace(&self, svid: Svid, bundle: TrustBundle) -> Result<(), IdentityError> {
        let acceptor = server_config(&svid, &bundle, ALPN_MESH)?.into();
        self.0.store(Some(Arc::new(State {
            svid,
            bundle,
            acceptor,
            connectors: Mutex::default(),
        })));
        Ok(())
    }

    /// The certificate in use, and the roots that it trusts.
    #[must_use]
    pub fn current(&self) -> Option<(Svid, TrustBundle)> {
        self.0.load().as_ref().map(|state| (state.svid.clone(), state.bundle.clone()))
    }

    /// For connections from other routers; none before the first certificate.
    #[must_use]
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.0.load().as_ref().map(|state| state.acceptor.clone())
    }

    /// For connections to a router of `peer`.
    ///
    /// # Errors
    /// `NotConnected` before the first certificate.
    pub fn connector(&self, peer: &SpiffeId) -> io::Result<TlsConnector> {
        let state = self.0.load();
        let state = state.as_ref().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotConnected, "this router has no certificate yet")
        })?;
        let mut connectors = state.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = connectors.get(peer) {
            return Ok(connector.clone());
        }
        let config = client_config(&state.svid, &state.bundle, peer, ALPN_MESH);
        let connector = TlsConnector::from(config.map_err(io::Error::other)?);
        connectors.insert(peer.clone(), connector.clone());
        Ok(connector)
    }
}
