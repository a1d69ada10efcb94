//! `weir up --tour`: the story of the mesh, told by doing it. Each step measures
//! what it claims and fails when it is not so.

mod certificates;
mod failures;
mod load;
mod shifts;
mod sticky;
mod story;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use weir_proto::weir::control::v1::{
    ChangeResponse, ListInstancesRequest, ListRoutersRequest, RouterStatus, ShiftRequest,
};
use weir_proto::weir::mesh::v1 as pb;

use crate::Error;
use crate::output;
use crate::up::start::Running;

/// The service whose traffic is moved.
const SERVICE: &str = "products";
/// A request that it answers without an account.
const PATH: &str = "/v1/products";
/// For anything that is waited for.
const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// What the steps share.
struct Tour<'a> {
    running: &'a mut Running,
    /// The user that was registered on the way.
    account: Option<story::Account>,
}

/// Walks through all steps.
pub async fn run(running: &mut Running) -> ExitCode {
    let began = Instant::now();
    let started_in = running.took;
    let mut tour = Tour { running, account: None };
    match tour.walk().await {
        Ok(steps) => {
            output::say(&format!(
                "\nthe tour is complete: {steps} steps in {:.1} s, after a start of {:.1} s",
                began.elapsed().as_secs_f64(),
                started_in.as_secs_f64()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::say(&format!("   FAILED: {error}"));
            tour.tell_deaths();
            output::say(&format!(
                "\nthe tour stops here; logs are in {} until this ends",
                tour.logs()
            ));
            ExitCode::FAILURE
        }
    }
}

/// Awaits one step between its heading and its time.
macro_rules! step {
    ($number:ident, $title:literal, $step:expr) => {{
        $number += 1;
        output::say(&format!("{}. {}", $number, $title));
        let began = Instant::now();
        $step.await?;
        output::say(&format!("   ok ({:.1} s)", began.elapsed().as_secs_f64()));
    }};
}

impl Tour<'_> {
    /// All steps; how many there were.
    async fn walk(&mut self) -> Result<u32, Error> {
        let mut n = 0;
        step!(n, "A router's inbound port refuses plaintext", self.plaintext_is_refused());
        step!(n, "A user registers, logs in and lists products", self.a_user_comes());
        step!(n, "Products move from v1 to v2 and back", self.products_move());
        step!(n, "A sticky user stays while the canary grows", self.users_stay());
        step!(n, "All certificates are renewed under load", self.certificates_rotate());
        step!(n, "kill -9 of an instance under load", self.an_instance_dies());
        step!(n, "kill -9 of a router under load", self.a_router_dies());
        step!(n, "kill -9 of the control plane under load", self.the_control_plane_dies());
        step!(n, "One request's trace through the mesh", self.a_trace_is_whole());
        Ok(n)
    }

    fn logs(&self) -> String {
        self.running.data.join("logs").display().to_string()
    }

    /// Deaths that nobody ordered explain much.
    fn tell_deaths(&self) {
        for state in self.running.supervisor.states().iter().filter(|state| state.deaths > 0) {
            output::say(&format!("   {} died {} times", state.name, state.deaths));
        }
    }

    /// Sets the weights of products and waits for every router.
    async fn shift(
        &mut self,
        weights: [(&str, i32); 2],
        sticky: Option<pb::Sticky>,
    ) -> Result<ChangeResponse, Error> {
        let request = ShiftRequest {
            service: SERVICE.into(),
            weights: weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
            clear_sticky: sticky.is_none(),
            sticky,
            wait: true,
            wait_seconds: 10,
            reason: "tour".into(),
            ..ShiftRequest::default()
        };
        let change = self.running.client.shift(request).await?.into_inner();
        if let Some(converged) = &change.converged {
            let pending: Vec<_> = converged
                .pending
                .iter()
                .map(|router| format!("{} ({})", router.router, router.reason))
                .collect();
            ensure(converged.applied == converged.routers && converged.routers > 0, || {
                format!(
                    "only {} of {} routers have applied revision {}; not {}",
                    converged.applied,
                    converged.routers,
                    change.revision,
                    pending.join(", ")
                )
            })?;
        } else if !change.unchanged {
            return Err(Error::new("the control plane did not wait for the routers"));
        }
        Ok(change)
    }

    async fn routers(&mut self) -> Result<Vec<RouterStatus>, Error> {
        Ok(self.running.client.list_routers(ListRoutersRequest {}).await?.into_inner().routers)
    }

    /// Whether the instance is healthy in the registry.
    async fn is_healthy(&mut self, id: &str) -> bool {
        let request = ListInstancesRequest { service: SERVICE.into() };
        match self.running.client.list_instances(request).await {
            Ok(answer) => {
                let instances = answer.into_inner().instances;
                instances.iter().any(|instance| instance.id == id && instance.healthy)
            }
            Err(_) => false,
        }
    }

    /// Waits until the process runs under another pid than `before`.
    async fn wait_restarted(&self, name: &str, before: u32) -> Result<u32, Error> {
        let began = Instant::now();
        loop {
            let pid = self.running.supervisor.state(name).and_then(|state| state.pid);
            match pid {
                Some(pid) if pid != before => return Ok(pid),
                _ if began.elapsed() > DEADLINE => {
                    return Err(Error::new(format!("{name} was not started again")));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Waits until every router of `ids` is live and has the newest snapshot.
    async fn wait_routers(&mut self, ids: &[String]) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            // The control plane itself may just be starting.
            let routers = self.routers().await.unwrap_or_default();
            let known: HashMap<&str, &RouterStatus> =
                routers.iter().map(|router| (router.router.as_str(), router)).collect();
            let behind: Vec<_> = ids
                .iter()
                .filter(|id| {
                    !known.get(id.as_str()).is_some_and(|router| router.live && router.lag == 0)
                })
                .collect();
            if behind.is_empty() {
                return Ok(());
            }
            if began.elapsed() > DEADLINE {
                return Err(Error::new(format!(
                    "not live or not up to date after {} s: {behind:?}",
                    DEADLINE.as_secs()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// An error unless `holds`.
fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::new(otherwise())) }
}

/// Says something measured.
fn say(line: &str) {
    output::say(&format!("   {line}"));
}

/// Asserts that at most `allowed` requests failed.
fn at_most_failed(stats: &load::Stats, allowed: u64) -> Result<(), Error> {
    ensure(stats.failed <= allowed, || {
        format!(
            "{} of {} requests failed, {allowed} may: {}",
            stats.failed,
            stats.requests,
            stats.failures.join("; ")
        )
    })
}
