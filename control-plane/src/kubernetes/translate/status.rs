//! Conditions of objects (GEP-1364), and who writes them.

use serde_json::{Value, json};

use super::json::{generation, list, text};

/// Writes the status of GatewayClasses and Gateways, and what routes hear about
/// Gateways.
pub(super) const GATEWAY_CONTROLLER: &str = "weir.dev/gateway";
/// Writes what routes hear about Services, and the status of policies.
pub(super) const MESH_CONTROLLER: &str = "weir.dev/controller";

/// One condition's type, or why it does not hold.
pub(super) struct Condition {
    name: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Condition {
    pub fn holds(name: &'static str, reason: &'static str) -> Self {
        Self { name, holds: true, reason, message: String::new() }
    }

    pub fn fails(name: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { name, holds: false, reason, message: message.into() }
    }

    /// As told by a result: its error is reason and message.
    pub fn of(name: &'static str, good: &'static str, result: &Result<(), Fault>) -> Self {
        match result {
            Ok(()) => Self::holds(name, good),
            Err(fault) => Self::fails(name, fault.reason, &fault.message),
        }
    }

    pub fn with_message(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }
}

/// Why something is not as it was asked for, in the Gateway API's words and ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub reason: &'static str,
    pub message: String,
}

impl Fault {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Longest message of a condition, by the API server's own limit.
const MAX_MESSAGE: usize = 32_000;

/// `conditions` of something of `object`; `present` are those that it has: those of
/// types that are not ours stay.
pub(super) fn conditions(object: &Value, present: &Value, ours: &[Condition]) -> Value {
    let written = ours.iter().map(|condition| {
        json!({
            "type": condition.name,
            "status": if condition.holds { "True" } else { "False" },
            "reason": condition.reason,
            "message": condition.message.chars().take(MAX_MESSAGE).collect::<String>(),
            "observedGeneration": generation(object),
        })
    });
    let foreign = list(present, "conditions").iter().filter(|condition| {
        let name = text(condition, "type");
        !name.is_empty() && ours.iter().all(|own| own.name != name) && !is_ours(name)
    });
    written.chain(foreign.cloned()).collect()
}

/// Types that this control plane writes somewhere: one that does not hold any more
/// must not stay.
fn is_ours(name: &str) -> bool {
    let all = ["Accepted", "Programmed", "ResolvedRefs", "Conflicted", "PartiallyInvalid"];
    all.contains(&name)
}

/// `parents` of a route or `ancestors` of a policy, less those of `controllers`.
pub(super) fn foreign<'a>(status: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    list(status, field).iter().filter(|entry| {
        ![GATEWAY_CONTROLLER, MESH_CONTROLLER].contains(&text(entry, "controllerName"))
    })
}
