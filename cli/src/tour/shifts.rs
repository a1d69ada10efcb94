//! Traffic moves between versions, exactly as the weights say.

use super::load::{CONCURRENCY, count};
use super::{PATH, Tour, at_most_failed, ensure, say};
use crate::Error;
use crate::up::plan::gateway_workers;

/// Requests that are counted after each shift.
const REQUESTS: u64 = 1_000;

impl Tour<'_> {
    /// 0 -> 10 -> 50 -> 100 -> back.
    pub(super) async fn products_move(&mut self) -> Result<(), Error> {
        for canary in [0, 10, 50, 100, 0] {
            let change = self.shift([("v1", 100 - canary), ("v2", canary)], None).await?;
            let stats = count(self.running.gateway, PATH, REQUESTS).await;
            at_most_failed(&stats, 0)?;

            let (v1, v2) = (stats.served_by("v1"), stats.served_by("v2"));
            ensure(v1 + v2 == REQUESTS, || {
                format!("served by {:?}; does the gateway show versions?", stats.versions)
            })?;
            // Each of the gateway's workers is within one request of the weights.
            let share = REQUESTS * u64::from(canary.unsigned_abs()) / 100;
            let off = v2.abs_diff(share);
            ensure(off <= gateway_workers() as u64, || {
                format!("v2 served {v2} of {REQUESTS} requests; {canary}% are {share}")
            })?;
            let converged = match &change.converged {
                Some(all) => format!(
                    "{} of {} routers applied it, the slowest after {} ms",
                    all.applied, all.routers, all.slowest_ms
                ),
                None => "was so already".to_owned(),
            };
            say(&format!(
                "v2={canary:<3} revision {}: {converged}; {REQUESTS} requests, {CONCURRENCY} at \
                 a time: v1 {v1}, v2 {v2}, 0 failed, p99 {:.1} ms",
                change.revision,
                stats.p99().as_secs_f64() * 1e3
            ));
        }
        Ok(())
    }
}
