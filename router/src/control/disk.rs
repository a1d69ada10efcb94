//! The last good snapshot and certificate on disk (invariant 1).

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message as _;
use weir_mesh::identity::{SpiffeId, Svid, TrustBundle};
use weir_mesh::{file, wire};
use weir_proto::weir::mesh::v1 as pb;

use super::Control;
use super::apply::Kept;
use crate::table::Builder;

/// A directory, if there is one.
pub struct Disk(Option<PathBuf>);

impl Disk {
    /// Keeps things in `dir`.
    #[must_use]
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self(dir)
    }

    /// Puts into use what an earlier run has left.
    pub(super) fn restore(&self, control: &Control, builder: &mut Builder) {
        let Some(dir) = &self.0 else { return };
        match (Svid::load(dir.join("svid.pem")), TrustBundle::load(dir.join("bundle.pem"))) {
            (Ok(svid), Ok(_)) if !control.is_own(svid.id()) => {
                tracing::warn!(id = %svid.id(), "kept certificate is another service's");
            }
            (Ok(svid), Ok(bundle)) if svid.not_after() > now() => {
                let not_after = svid.not_after();
                match control.shared.identity.replace(svid, bundle) {
                    Ok(()) => control.renewed_certificate(not_after),
                    Err(error) => tracing::warn!(%error, "kept certificate is not usable"),
                }
            }
            (Ok(_), Ok(_)) => tracing::info!("kept certificate has run out"),
            _ => {}
        }
        let Ok(bytes) = fs::read(dir.join("snapshot.pb")) else { return };
        let bytes = Bytes::from(bytes);
        let table = pb::Snapshot::decode(bytes.clone())
            .map_err(|error| error.to_string())
            .and_then(|message| wire::snapshot(&message).map_err(|error| error.to_string()))
            .and_then(|snapshot| builder.build(&snapshot).map_err(|error| error.to_string()));
        match table {
            Ok(table) => {
                tracing::info!(sequence = table.sequence(), "serving by the kept snapshot");
                control.shared.install(table.into());
                control.applied.send_replace(Kept::new(bytes));
            }
            Err(error) => tracing::warn!(%error, "kept snapshot is not usable"),
        }
    }

    /// Keeps a snapshot that is in use.
    fn keep_snapshot(&self, bytes: &[u8]) {
        let Some(dir) = &self.0 else { return };
        // It may name descriptors and addresses, no secrets; still nobody else's business.
        if let Err(error) = file::write_secret(dir.join("snapshot.pb"), bytes) {
            tracing::warn!(%error, "snapshot is not kept");
        }
    }

    /// Keeps a certificate that is in use.
    pub(super) fn keep_certificate(&self, svid: &Svid, bundle: &TrustBundle) {
        let Some(dir) = &self.0 else { return };
        let saved =
            bundle.save(dir.join("bundle.pem")).and_then(|()| svid.save(dir.join("svid.pem")));
        if let Err(error) = saved {
            tracing::warn!(%error, "certificate is not kept");
        }
    }
}

impl Control {
    fn is_own(&self, id: &SpiffeId) -> bool {
        let config = &self.shared.config;
        let own = match &config.pod {
            // Which service account is the pod's is known to the control plane alone.
            Some(pod) => id.namespace() == &*pod.namespace,
            None => id.service() == config.service.as_str(),
        };
        own && id.trust_domain() == config.args.trust_domain
    }

    /// Keeps the newest snapshot, one write at a time: none ever comes after a
    /// later one. For ever.
    pub(super) async fn keep_snapshots(self: Arc<Self>) {
        let mut applied = self.applied.subscribe();
        while applied.changed().await.is_ok() {
            let kept = applied.borrow_and_update().clone();
            let control = self.clone();
            let kept = tokio::task::spawn_blocking(move || {
                control.disk.keep_snapshot(&kept.serialized());
            });
            if let Err(error) = kept.await {
                tracing::error!(%error, "snapshot is not kept");
            }
        }
    }
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
