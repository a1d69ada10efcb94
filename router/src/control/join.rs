//! Getting a certificate, and a new one at two thirds of its life.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tonic::transport::Endpoint;
use weir_mesh::identity::{
    IdentityError, SpiffeId, SpiffeIdError, Svid, TrustBundle, bootstrap_client_config, renewal_at,
};
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::identity_service_client::IdentityServiceClient;

use super::Control;
use super::connect::{ConnectError, connect};
use super::disk::now;

const CALL: Duration = Duration::from_secs(10);
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Why there is no new certificate yet.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Name(#[from] SpiffeIdError),
    #[error("making a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the control plane refused: {0}")]
    Refused(String),
}

impl Control {
    /// Keeps a valid certificate in use, for ever.
    pub(super) async fn keep_certificate(self: Arc<Self>) {
        let mut backoff = BACKOFF;
        let mut due = match self.shared.identity.current() {
            Some((svid, _)) => due_in(&svid),
            None => Duration::ZERO,
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep(due) => {}
                () = self.renew.notified() => {}
            }
            match self.sign().await {
                Ok((svid, bundle)) => {
                    backoff = BACKOFF;
                    // A clock that is far ahead must not make us ask without pause.
                    due = due_in(&svid).max(BACKOFF_MAX);
                    let not_after = svid.not_after();
                    self.disk.keep_certificate(&svid, &bundle);
                    match self.shared.identity.replace(svid, bundle) {
                        Ok(()) => self.renewed_certificate(not_after),
                        Err(error) => tracing::error!(%error, "new certificate is not usable"),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?backoff, "no new certificate yet");
                    due = backoff.mul_f64(0.5 + fastrand::f64());
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    pub(super) fn renewed_certificate(&self, not_after: i64) {
        self.shared.metrics.certificate_expiry.set(not_after);
        self.renewed.send_replace(not_after);
    }

    async fn sign(&self) -> Result<(Svid, TrustBundle), JoinError> {
        match self.sign_trusting(&self.roots()?).await {
            // The root may have been replaced while we were away: the file at
            // our start is kept up to date by whoever runs us.
            Err(JoinError::Connect(_)) => {
                self.sign_trusting(&TrustBundle::load(&self.trust_bundle)?).await
            }
            result => result,
        }
    }

    async fn sign_trusting(&self, roots: &TrustBundle) -> Result<(Svid, TrustBundle), JoinError> {
        let config = &self.shared.config;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let control_plane = SpiffeId::control_plane(&config.args.trust_domain)?;
        let tls = bootstrap_client_config(roots, &control_plane)?;
        let endpoint = Endpoint::from_static("http://control-plane");
        let endpoint = endpoint.connect_timeout(CALL).timeout(CALL);
        let channel = connect(&config.args.control, &endpoint, tls).await?;
        let request = pb::SignRequest {
            service: config.service.to_string(),
            join_token: self.token()?.expose().to_owned(),
            csr_der: csr.der().to_vec(),
        };
        let answer = IdentityServiceClient::new(channel)
            .sign(request)
            .await
            .map_err(|status| JoinError::Refused(status.message().to_owned()))?
            .into_inner();
        let bundle = TrustBundle::from_der(&answer.trust_bundle)?;
        let svid = Svid::from_der(answer.certificate_chain, key.serialize_der())?;
        Ok((svid, bundle))
    }
}

fn due_in(svid: &Svid) -> Duration {
    let at = renewal_at(svid.not_before(), svid.not_after(), fastrand::f64());
    Duration::from_secs(u64::try_from(at - now()).unwrap_or_default())
}
