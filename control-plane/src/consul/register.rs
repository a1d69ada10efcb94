//! Registers this mesh's instances in Consul: each by a TTL check that is passed as
//! long as its router is there, so that a control plane that dies leaves nothing
//! behind for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{Instance, Transport};

use super::Consul;
use super::answer::{IDENTITY, MANAGED, ROUTER_PORT};
use super::client::{Client, ConsulError, segment};
use super::state::Subject;
use crate::control::Control;

/// Without a word for so long, Consul takes an instance for critical.
const TTL: &str = "30s";
/// How often word is given: two may be lost.
const PASS: Duration = Duration::from_secs(10);
/// Consul removes what has been critical for so long; it accepts no less than 1m.
const FORGET: &str = "1m";
/// After a failure, before all is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// For the last words when the process stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// What Consul has of this mesh.
#[derive(Default)]
struct Written {
    /// By id in Consul: as it was registered, and the health that was told.
    services: BTreeMap<String, (Bytes, bool)>,
}

impl Consul {
    /// Keeps what routers register at this control plane registered in Consul, until
    /// the process stops.
    pub async fn register(self: Arc<Self>, control: Arc<Control>) {
        if !self.settings.register {
            return;
        }
        let mut client = Client::new(self.endpoint.clone());
        let mut written = Written::default();
        let mut members = control.registry.watch_members();
        let mut again = tokio::time::interval(PASS);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pass = false;
        loop {
            members.mark_unchanged();
            let wrote = tokio::select! {
                wrote = self.write(&control, &mut client, &mut written, pass) => wrote,
                () = control.shutdown.requested() => break,
            };
            self.state.registered(written.services.len());
            let rest = match &wrote {
                Ok(()) => {
                    self.state.worked(&Subject::Registration);
                    Duration::MAX
                }
                Err(error) => {
                    self.state.failed(Subject::Registration, error);
                    RETRY
                }
            };
            pass = tokio::select! {
                () = control.shutdown.requested() => break,
                _ = members.changed(), if wrote.is_ok() => false,
                _ = again.tick() => true,
                () = tokio::time::sleep(rest.min(PASS)), if wrote.is_err() => false,
            };
        }
        // Routers that left just now.
        let last = self.write(&control, &mut client, &mut written, false);
        if tokio::time::timeout(GOODBYE, last).await.is_err() {
            tracing::debug!("Consul was not told who left; it will find out");
        }
    }

    /// Brings Consul to what the registry has. `pass`: the TTLs too.
    async fn write(
        &self,
        control: &Control,
        client: &mut Client,
        written: &mut Written,
        pass: bool,
    ) -> Result<(), ConsulError> {
        let instances = control.registry.own_instances();
        let instances = instances.iter().filter(|i| i.transport == Transport::Mesh);
        let wanted: BTreeMap<String, &Instance> = instances.map(|i| (id(i), i)).collect();
        let gone: Vec<_> =
            written.services.keys().filter(|id| !wanted.contains_key(*id)).cloned().collect();
        for id in gone {
            let path = format!("/v1/agent/service/deregister/{}", segment(&id));
            match client.put(&path, Bytes::new()).await {
                Ok(()) => {}
                Err(ConsulError::Status { status, .. }) if status.as_u16() == 404 => {}
                Err(error) => return Err(error),
            }
            written.services.remove(&id);
        }
        for (id, instance) in wanted {
            let body = self.body(&id, instance);
            let known = written.services.get(&id);
            let same = known.is_some_and(|(old, _)| *old == body);
            let told = known.is_some_and(|(_, healthy)| *healthy == instance.healthy);
            if same && told && !pass {
                continue;
            }
            if !same || !self.tell(client, &id, instance).await? {
                client
                    .put("/v1/agent/service/register?replace-existing-checks", body.clone())
                    .await?;
                // A check that is registered anew is critical until it is told otherwise.
                if !self.tell(client, &id, instance).await? {
                    tracing::debug!(id, "Consul does not know what was just registered");
                }
            }
            written.services.insert(id, (body, instance.healthy));
        }
        Ok(())
    }

    /// Tells an instance's health. False: Consul does not know it, as when the agent
    /// was started anew.
    async fn tell(
        &self,
        client: &mut Client,
        id: &str,
        instance: &Instance,
    ) -> Result<bool, ConsulError> {
        let path = format!("/v1/agent/check/update/{}", segment(&check(id)));
        let (status, output) = match instance.healthy {
            true => ("passing", "its router says that it is healthy"),
            false => ("critical", "its router says that it is unhealthy"),
        };
        let body = json!({"Status": status, "Output": output}).to_string();
        match client.put(&path, body.into()).await {
            Ok(()) => Ok(true),
            // Older agents answer 500 for a check that they do not know.
            Err(ConsulError::Status { status, told, .. })
                if status.as_u16() == 404 || told.contains("does not have associated TTL") =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn body(&self, id: &str, instance: &Instance) -> Bytes {
        let identity = SpiffeId::of_service(&self.reading.trust_domain, instance.service.as_str());
        let identity = identity.map(|id| id.to_string()).unwrap_or_default();
        let (ip, port) = (instance.address.ip().to_string(), instance.address.port());
        let body = json!({
            "ID": id,
            // A service of Consul's is a DNS label.
            "Name": instance.service.as_str().replace(['.', ':'], "-"),
            "Address": ip,
            "Port": port,
            "Tags": [format!("version={}", instance.version)],
            "Meta": {
                "version": instance.version.as_str(),
                "zone": &*instance.zone,
                MANAGED: &*self.reading.trust_domain,
                ROUTER_PORT: port.to_string(),
                IDENTITY: identity,
            },
            "Check": {
                "CheckID": check(id),
                "Name": "Weir router",
                "TTL": TTL,
                "DeregisterCriticalServiceAfter": FORGET,
            },
        });
        body.to_string().into()
    }
}

/// In Consul.
fn id(instance: &Instance) -> String {
    format!("weir-{}", instance.id)
}

fn check(id: &str) -> String {
    format!("service:{id}")
}
