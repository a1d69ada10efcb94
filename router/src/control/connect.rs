//! A connection to the control plane, wherever its name leads now.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use weir_mesh::identity::connect_tls;

use crate::config::Remote;

/// For the lookup of the name.
const LOOKUP: Duration = Duration::from_secs(5);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot look up the control plane at {0}: {1}")]
    Lookup(Remote, #[source] std::io::Error),
    #[error("cannot reach the control plane at {0}: {1}")]
    Connect(Remote, #[source] tonic::transport::Error),
}

/// Connects to the first address that answers.
pub(super) async fn connect(
    to: &Remote,
    endpoint: &Endpoint,
    tls: std::sync::Arc<rustls::ClientConfig>,
) -> Result<Channel, ConnectError> {
    let lookup = |error| ConnectError::Lookup(to.clone(), error);
    let found = tokio::time::timeout(LOOKUP, to.resolve()).await;
    let found = found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let mut last = lookup(std::io::ErrorKind::NotFound.into());
    for address in found.map_err(lookup)? {
        match endpoint.connect_with_connector(connect_tls(address, tls.clone())).await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = ConnectError::Connect(to.clone(), error),
        }
    }
    Err(last)
}
