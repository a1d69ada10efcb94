//! Has a task for each rollout, while this control plane leads.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{Id, JoinSet};

use weir_mesh::rollout::{Rollout, Told};

use super::runner;
use crate::control::Control;
use crate::replica::Lead;
use crate::store::Held;

/// Drives all rollouts for as long as this one leads. Never returns.
pub async fn keep(control: Arc<Control>) {
    let mut lead = control.replica.lead.subscribe();
    loop {
        // Its sender lives as long as the control plane.
        if lead.wait_for(|lead| *lead == Lead::Own).await.is_err() {
            return;
        }
        tokio::select! {
            () = drive(&control) => {}
            _ = lead.wait_for(|lead| *lead != Lead::Own) => {
                tracing::info!("rollouts are the next leader's");
            }
        }
        control.rollouts.clear();
    }
}

/// Starts what is not at its end, or whose end somebody is still to be told. When this is dropped, all tasks end: what they were
/// about to change is refused by the store, or was asked for while this one led.
async fn drive(control: &Arc<Control>) {
    let mut desired = control.desired.subscribe();
    let mut tasks = JoinSet::new();
    let mut names: HashMap<Id, Arc<str>> = HashMap::new();
    loop {
        let open: Vec<Arc<str>> = {
            let now = desired.borrow_and_update();
            let untold = |held: &Held<Rollout>| held.value.state.write_back == Some(Told::Pending);
            let open = now.rollouts.iter().filter(|(_, held)| held.value.owns() || untold(held));
            open.map(|(name, _)| name.clone()).collect()
        };
        for name in open {
            if !names.values().any(|running| *running == name) {
                let task = tasks.spawn(runner::run(control.clone(), name.clone()));
                names.insert(task.id(), name);
            }
        }
        tokio::select! {
            changed = desired.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(ended) = tasks.join_next_with_id() => {
                let id = match &ended {
                    Ok((id, ())) => *id,
                    Err(lost) => lost.id(),
                };
                if let Some(name) = names.remove(&id) {
                    control.rollouts.forget(&name);
                    if let Err(lost) = ended {
                        tracing::error!(rollout = %name, %lost, "a rollout's task was lost");
                        tokio::time::sleep(runner::RETRY).await;
                    }
                }
            }
        }
    }
}
