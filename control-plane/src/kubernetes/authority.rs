//! The authority that replicas share: each of them signs by the Secret's roots, and takes
//! in what another one makes of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};

use super::cluster::{Cluster, chain};
use super::secrets::{CA, CaSecret};
use crate::ca::{Authority, CaError};
use crate::control::Control;

/// After the watch broke, or the Secret could not be taken in.
const RETRY: Duration = Duration::from_secs(1);

/// The authority in the Secret; founded when there is none. Blocks.
///
/// # Errors
/// [`CaError`].
pub fn open(
    cluster: &Cluster,
    trust_domain: &str,
    lifetime: Duration,
) -> Result<Authority, CaError> {
    Authority::open_in(Box::new(CaSecret::new(cluster.clone())), trust_domain, lifetime)
}

/// Takes in each change of the Secret. Never returns.
pub async fn follow(cluster: Cluster, control: Arc<Control>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={CA}"));
    let mut events = watcher(cluster.secrets(), config).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(_) | Event::Apply(_)) => reload(&control).await,
            Ok(_) => {}
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "the watch of the authority broke; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn reload(control: &Arc<Control>) {
    loop {
        let own = control.clone();
        let reloaded = tokio::task::spawn_blocking(move || own.authority.reload()).await;
        match reloaded {
            Ok(Err(error)) => {
                tracing::error!(%error, "roots that another replica wrote are not taken in");
                tokio::time::sleep(RETRY).await;
            }
            _ => return,
        }
    }
}
