//! What `/metrics` shows, in Prometheus' text format.

use weir_mesh::telemetry::metrics::Registry;

use crate::consul::Status;
use crate::control::Control;
use crate::registry::{Presence, Router};

/// The control plane's metrics. What can be counted from its state is counted when
/// it is asked for.
#[derive(Default)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// The text, as of now.
    #[must_use]
    pub fn render(&self, control: &Control) -> String {
        self.set("weir.control.revision", "Number of the desired state.", &[], {
            i64::from(control.desired.borrow().revision)
        });
        let newest = control.publisher.newest();
        self.set("weir.control.sequence", "Number of the newest snapshot.", &[], number(newest));
        let routers = control.registry.routers();
        let count = |presence| routers.iter().filter(|r| r.presence == presence).count() as u64;
        for (name, presence) in [
            ("connected", Presence::Connected),
            ("lost", Presence::Lost),
            ("deferred", Presence::Deferred),
            ("restored", Presence::Restored),
        ] {
            let help = "Routers, by whether they have a stream.";
            let labels = [("state", name)];
            self.set("weir.control.routers", help, &labels, number(count(presence)));
        }
        let refused = routers.iter().filter(|r| r.acks.refusal.is_some()).count() as u64;
        let help = "Routers that refused a snapshot newer than the one they use.";
        self.set("weir.control.routers.refused", help, &[], number(refused));
        let lag = |r: &Router| match &r.remote {
            Some(remote) => remote.lag,
            None => control.publisher.lag(r.acks.sequence),
        };
        let lag = routers.iter().map(lag).max();
        let help = "Snapshots that the slowest router is behind.";
        self.set("weir.control.lag", help, &[], number(lag.unwrap_or(0)));
        for (name, healthy) in [("true", true), ("false", false)] {
            let instances = control.instances();
            let count = instances.iter().filter(|i| i.healthy == healthy).count() as u64;
            let help = "Instances, by health.";
            self.set("weir.control.instances", help, &[("healthy", name)], number(count));
        }
        let help = "Roots that are trusted; more than one while they are being changed.";
        self.set("weir.control.roots", help, &[], number(control.authority.bundle().len() as u64));
        self.scale(control);
        let help = "Tries to write back the end of a rollout that failed.";
        let failures = &control.rollouts.failures;
        let name = "weir.control.rollouts.write_back.failures";
        let _ = self.registry.bind_counter(name, help, "{try}", &[], failures);
        if let Some(consul) = &control.consul {
            self.consul(&consul.status());
        }
        self.registry.render()
    }

    /// What many routers cost.
    fn scale(&self, control: &Control) {
        let costs = control.publisher.costs();
        let count = |name, help, unit, labels: &[_], counter| {
            let _ = self.registry.bind_counter(name, help, unit, labels, counter);
        };
        let help =
            "Messages that brought routers to a newer snapshot: the whole of it, or a delta.";
        for (kind, counter) in [("whole", &costs.wholes), ("delta", &costs.deltas)] {
            count("weir.control.snapshots.sent", help, "{message}", &[("kind", kind)], counter);
        }
        let help = "Bytes of these, before TLS.";
        count("weir.control.snapshots.sent.size", help, "By", &[], &costs.bytes);
        let help = "Deltas that a router refused; it was sent the whole snapshot then.";
        count("weir.control.deltas.refused", help, "{message}", &[], &costs.refused);
        let help = "Routers that were told to come back later or elsewhere.";
        count("weir.control.routers.deferred", help, "{router}", &[], &costs.told_to_wait);
        let help = "Time to make a snapshot of what is desired and encode it.";
        let name = "weir.control.publish.duration";
        let _ = self.registry.bind_histogram(name, help, "s", &[], &costs.publish);
        for (what, limit) in [
            ("snapshot", &control.pace.wholes),
            ("handshake", &control.pace.handshakes),
            ("signature", &control.pace.signatures),
        ] {
            let help = "Routers in line, by what for.";
            self.set(
                "weir.control.waiting",
                help,
                &[("for", what)],
                number(limit.waiting() as u64),
            );
        }
    }

    fn consul(&self, status: &Status) {
        let up = i64::from(status.trouble.is_none());
        self.set("weir.control.consul.up", "1 while Consul is in touch.", &[], up);
        let help = "Services that are taken from Consul.";
        self.set("weir.control.consul.services", help, &[], number(status.services as u64));
        let help = "Instances that are taken from Consul.";
        self.set("weir.control.consul.instances", help, &[], number(status.instances as u64));
        let help = "Instances that Consul does not list any more and that are kept for a while.";
        self.set("weir.control.consul.kept", help, &[], number(status.kept as u64));
        let help = "Entries of Consul's that cannot be taken in.";
        self.set("weir.control.consul.skipped", help, &[], number(status.skipped.len() as u64));
        let help = "Instances of this mesh that are registered in Consul.";
        self.set("weir.control.consul.registered", help, &[], number(status.registered as u64));
        let help = "Questions to Consul that failed, since the start.";
        self.set("weir.control.consul.errors", help, &[], number(status.errors));
        let help = "Times that an index of Consul's went back, since the start.";
        self.set("weir.control.consul.resets", help, &[], number(status.resets));
    }

    fn set(&self, name: &str, help: &str, labels: &[(&str, &str)], value: i64) {
        self.registry.gauge(name, help, "", labels).set(value);
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
