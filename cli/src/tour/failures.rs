//! What happens to requests when a process dies.

use std::time::{Duration, Instant};

use weir_proto::weir::control::v1::GetMeshRequest;

use super::load::{CONCURRENCY, Load, Stats};
use super::{DEADLINE, PATH, POLL, Tour, at_most_failed, ensure, say};
use crate::Error;
use crate::up::plan::CONTROL_PLANE;

/// Requests run this long before something is killed, and after it is back.
const CALM: Duration = Duration::from_millis(300);
/// Until every router knows of the death. What is sent before that may be lost
/// with what was in flight.
const SETTLED: Duration = Duration::from_millis(200);

/// The processes that are killed: an instance that serves v1, which has all the
/// traffic then, and another one's router.
const INSTANCE: &str = "products-v1-1";
const ROUTER: &str = "products-v1-2-router";
const ROUTERS_INSTANCE: &str = "products-v1-2";

impl Tour<'_> {
    /// The application of one of two instances dies.
    pub(super) async fn an_instance_dies(&mut self) -> Result<(), Error> {
        self.kill_and_recover(INSTANCE, INSTANCE).await
    }

    /// The router of one of two instances dies.
    pub(super) async fn a_router_dies(&mut self) -> Result<(), Error> {
        self.kill_and_recover(ROUTER, ROUTERS_INSTANCE).await
    }

    async fn kill_and_recover(&mut self, process: &str, instance: &str) -> Result<(), Error> {
        let load = Load::start(self.running.gateway, PATH);
        tokio::time::sleep(CALM).await;
        let began = Instant::now();
        let pid = self.running.supervisor.kill(process)?;
        let again = self.wait_restarted(process, pid).await?;
        self.wait_healthy(instance).await?;
        let took = began.elapsed();
        tokio::time::sleep(CALM).await;
        let stats = load.stop().await;
        at_most_failed(&stats, CONCURRENCY)?;
        nothing_failed_later(&stats, began)?;
        say(&format!(
            "{process}: process {pid} was killed, {again} serves after {:.0} ms; {} requests, {} \
             failed of at most {CONCURRENCY} in flight",
            took.as_secs_f64() * 1e3,
            stats.requests,
            stats.failed
        ));
        Ok(())
    }

    async fn wait_healthy(&mut self, instance: &str) -> Result<(), Error> {
        let began = Instant::now();
        // A dead router's instance may look healthy until its stream is known
        // to have ended, so it must have been live before it counts.
        while !self.is_healthy(instance).await {
            ensure(began.elapsed() < DEADLINE, || format!("{instance} is not healthy again"))?;
            tokio::time::sleep(POLL).await;
        }
        self.wait_routers(&[instance.to_owned()]).await
    }

    /// The control plane dies; requests go on without it.
    pub(super) async fn the_control_plane_dies(&mut self) -> Result<(), Error> {
        let live: Vec<String> = self
            .routers()
            .await?
            .into_iter()
            .filter(|router| router.live)
            .map(|router| router.router)
            .collect();
        let load = Load::start(self.running.gateway, PATH);
        tokio::time::sleep(CALM).await;
        let before = load.stats().requests;
        let began = Instant::now();
        let pid = self.running.supervisor.kill(CONTROL_PLANE)?;
        self.wait_control_plane().await?;
        let gone = began.elapsed();
        let meanwhile = load.stats().requests - before;
        ensure(meanwhile > 0, || "no request was served while it was gone".into())?;
        let again = self.wait_restarted(CONTROL_PLANE, pid).await?;
        self.wait_routers(&live).await?;
        say(&format!(
            "process {pid} was killed, {again} answers after {:.0} ms; {meanwhile} requests were \
             served while it was gone; {} routers are back after {:.0} ms",
            gone.as_secs_f64() * 1e3,
            live.len(),
            began.elapsed().as_secs_f64() * 1e3
        ));

        let change = self.shift([("v1", 90), ("v2", 10)], None).await?;
        let back = self.shift([("v1", 100), ("v2", 0)], None).await?;
        let converged = change.converged.unwrap_or_default();
        ensure(converged.routers as usize == live.len(), || {
            format!("{} routers converged; there are {}", converged.routers, live.len())
        })?;
        let stats = load.stop().await;
        at_most_failed(&stats, 0)?;
        say(&format!(
            "revisions {} and {} were applied by {} of {} routers; {} requests in all, 0 failed",
            change.revision, back.revision, converged.applied, converged.routers, stats.requests
        ));
        Ok(())
    }

    async fn wait_control_plane(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        while self.running.client.get_mesh(GetMeshRequest {}).await.is_err() {
            ensure(began.elapsed() < DEADLINE, || "the control plane did not come back".into())?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// Nothing that was sent once routers knew may fail.
fn nothing_failed_later(stats: &Stats, killed: Instant) -> Result<(), Error> {
    match stats.last_failed {
        Some(last) if last > killed + SETTLED => Err(Error::new(format!(
            "a request that was sent {} ms after the kill failed: {}",
            (last - killed).as_millis(),
            stats.failures.join("; ")
        ))),
        _ => Ok(()),
    }
}
