//! New certificates everywhere, and nobody notices.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use weir_proto::weir::control::v1::RotateCertificatesRequest;

use super::load::Load;
use super::{DEADLINE, PATH, POLL, Tour, at_most_failed, ensure, say};
use crate::Error;

/// Requests go on this long on the new certificates.
const AFTER: Duration = Duration::from_millis(500);

impl Tour<'_> {
    /// Rotates under load.
    pub(super) async fn certificates_rotate(&mut self) -> Result<(), Error> {
        let before: HashMap<String, i64> = self
            .routers()
            .await?
            .into_iter()
            .filter(|router| router.live)
            .map(|router| (router.router, router.certificate_not_after))
            .collect();
        let load = Load::start(self.running.gateway, PATH);
        let began = Instant::now();
        let request = RotateCertificatesRequest { new_root: false, reason: "tour".into() };
        let asked = self.running.client.rotate_certificates(request).await?.into_inner().routers;
        ensure(asked as usize == before.len(), || {
            format!("{asked} of {} routers were asked", before.len())
        })?;
        self.wait_renewed(&before).await?;
        let took = began.elapsed();
        tokio::time::sleep(AFTER).await;
        let stats = load.stop().await;
        at_most_failed(&stats, 0)?;
        say(&format!(
            "{asked} routers have new certificates after {:.0} ms; {} requests meanwhile, 0 \
             failed, p99 {:.1} ms",
            took.as_secs_f64() * 1e3,
            stats.requests,
            stats.p99().as_secs_f64() * 1e3
        ));
        Ok(())
    }

    /// A newer certificate runs out later.
    async fn wait_renewed(&mut self, before: &HashMap<String, i64>) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let now = self.routers().await?;
            let old: Vec<_> = now
                .iter()
                .filter(|router| {
                    before
                        .get(&router.router)
                        .is_some_and(|was| router.certificate_not_after <= *was)
                })
                .map(|router| router.router.as_str())
                .collect();
            if old.is_empty() {
                return Ok(());
            }
            ensure(began.elapsed() < DEADLINE, || {
                format!("not renewed after {} s: {}", DEADLINE.as_secs(), old.join(", "))
            })?;
            tokio::time::sleep(POLL).await;
        }
    }
}
