//! A connection to the control plane, wherever its names lead now.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use weir_mesh::identity::connect_tls;

use crate::config::Remote;

/// For the lookup of its names.
const LOOKUP: Duration = Duration::from_secs(5);
/// For one address, while there are others.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(2);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot look up the control plane at {0}: {1}")]
    Lookup(Remote, #[source] std::io::Error),
    #[error("cannot reach the control plane at {0}: {1}")]
    Connect(Remote, #[source] tonic::transport::Error),
    #[error("the control plane at {0} does not answer within {ONE_OF_SEVERAL:?}")]
    Late(SocketAddr),
}

/// Connects to the first address that answers, in an order of chance: so that
/// routers are spread over the replicas of a control plane, and one that has gone
/// costs nobody more than a try.
pub(super) async fn connect(
    to: &Remote,
    endpoint: &Endpoint,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Channel, ConnectError> {
    let lookup = |error| ConnectError::Lookup(to.clone(), error);
    let found = timeout(LOOKUP, to.resolve()).await;
    let found = found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let mut addresses = found.map_err(lookup)?;
    // A name of several replicas comes in an order that may be the same for all.
    fastrand::shuffle(&mut addresses);
    let several = addresses.len() > 1;
    let mut last = lookup(std::io::ErrorKind::NotFound.into());
    for address in addresses {
        let connecting = endpoint.connect_with_connector(connect_tls(address, tls.clone()));
        let connected = match several {
            true => timeout(ONE_OF_SEVERAL, connecting).await,
            false => Ok(connecting.await),
        };
        last = match connected {
            Ok(Ok(channel)) => return Ok(channel),
            Ok(Err(error)) => ConnectError::Connect(to.clone(), error),
            Err(_) => ConnectError::Late(address),
        };
    }
    Err(last)
}
