//! Asks the webhook of a gate until it says yes.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_mesh::rollout::{Rollout, Webhook};

use super::decide::Gate;
use super::http;

/// Between an answer that is no yes and the next question.
const AGAIN: Duration = Duration::from_secs(5);

/// A task that asks. It ends when this is dropped.
pub struct Asking {
    said: watch::Receiver<Gate>,
    last: Gate,
    task: JoinHandle<()>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Asking {
    /// Begins to ask.
    pub fn start(hook: Webhook, rollout: &Rollout) -> Self {
        let first = Gate::Closed(format!("asks {}", hook.url.place()));
        let (sender, said) = watch::channel(first.clone());
        let body = question(rollout);
        let task = tokio::spawn(async move {
            loop {
                let place = hook.url.place();
                let said = match http::post(&hook, &body).await {
                    Ok(answer) if answer.status.is_success() => Gate::Open,
                    Ok(answer) => Gate::Closed(format!("{place} answered {}", answer.status)),
                    Err(error) => Gate::Closed(format!("{place}: {error}")),
                };
                let open = said == Gate::Open;
                sender.send_replace(said);
                if open {
                    return;
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
        Self { said, last: first, task }
    }

    /// What was said last.
    pub fn said(&self) -> &Gate {
        &self.last
    }

    /// Waits for something new. For ever when nobody is asked.
    pub async fn answered(asking: &mut Option<Self>) {
        if let Some(asking) = asking
            && asking.said.changed().await.is_ok()
        {
            asking.last = asking.said.borrow_and_update().clone();
            return;
        }
        std::future::pending().await
    }
}

/// What every webhook is sent.
pub fn question(rollout: &Rollout) -> String {
    let (spec, state) = (&rollout.spec, &rollout.state);
    json!({
        "rollout": *rollout.name,
        "service": spec.service.as_str(),
        "stable": state.stable.as_ref().map(|version| version.as_str()),
        "canary": spec.canary.as_str(),
        "phase": state.phase.as_str(),
        "step": state.step,
        "steps": spec.steps.len(),
        "stepText": rollout.step_text(),
        "weight": spec.weight_at(state.step).unwrap_or(0),
    })
    .to_string()
}
