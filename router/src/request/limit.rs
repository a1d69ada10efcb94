//! The step that asks rate limits.

use std::time::Duration;

use http::request::Parts;
use weir_mesh::duration;
use weir_mesh::policy::rate_limit::{LimitMode, OnFailure, Scope};

use super::call::Call;
use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::limit::local::Verdict;
use crate::limit::quota::{Quota, seconds};
use crate::limit::rule::{Attachment, Decision, Rule};
use crate::worker::Worker;

/// A request that came too often.
#[derive(Debug)]
pub struct TooOften {
    /// Of the policy.
    pub policy: Box<str>,
    /// Of the rule.
    pub rule: Box<str>,
    /// How many the rule lets through, as it says it: `10 in 1m`.
    pub limit: String,
    /// When it may come again.
    pub after: Duration,
    /// What is told of all limits.
    pub quota: Quota,
}

impl TooOften {
    /// For `Retry-After`: at least 1.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        seconds(self.after).max(1)
    }
}

impl std::fmt::Display for TooOften {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "rate limit {:?} of RateLimitPolicy {:?} is used up ({}); come again in {} s",
            self.rule,
            self.policy,
            self.limit,
            self.seconds()
        )
    }
}

/// Asks every limit that counts this request: first those that this process
/// holds, then those that all routers hold together. The first that is used up
/// ends it; those before it have counted the request.
///
/// # Errors
/// [`RouterError::TooOften`], or [`RouterError::NoCounts`] when the store cannot
/// be asked and the policy says Closed.
pub async fn check(
    worker: &Worker,
    connected: &Connected,
    limits: &[Attachment],
    parts: &Parts,
    call: &Call,
) -> Result<Box<Quota>, RouterError> {
    let mut quota = Box::<Quota>::default();
    let holds = |limit: &&Attachment| {
        (!limit.gateway_only || connected.side == Side::Gateway) && limit.rule.counts(parts)
    };
    let (local, global): (Vec<_>, Vec<_>) = limits
        .iter()
        .filter(holds)
        .map(|limit| &*limit.rule)
        .partition(|rule| rule.rule.scope == Scope::Local);
    for rule in local {
        let verdict = rule.take(connected, parts);
        decide(worker, rule, verdict, &mut quota)?;
    }
    for rule in global {
        let verdict = call.in_time(ask(rule, connected, parts)).await??;
        decide(worker, rule, verdict, &mut quota)?;
    }
    Ok(quota)
}

/// What the store says; while it is away, what this process says by itself.
async fn ask(rule: &Rule, connected: &Connected, parts: &Parts) -> Result<Verdict, RouterError> {
    // Counted here as well, so that a store that goes away is no fresh start.
    let own = rule.take(connected, parts);
    let Some(store) = &rule.store else { return Ok(own) };
    let limit = &rule.rule;
    let key = rule.store_key(connected, parts);
    let asked = store.take(key, limit.per, limit.requests.get(), limit.cost.get());
    match (asked.await, rule.on_failure) {
        (Ok(verdict), _) => Ok(verdict),
        (Err(_), OnFailure::Open) => Ok(own),
        (Err(_), OnFailure::Closed) if rule.mode == LimitMode::Audit => Ok(own),
        (Err(_), OnFailure::Closed) => Err(RouterError::NoCounts(rule.label.clone())),
    }
}

fn decide(
    worker: &Worker,
    rule: &Rule,
    verdict: Verdict,
    quota: &mut Box<Quota>,
) -> Result<(), RouterError> {
    let limit = &rule.rule;
    let enforced = rule.mode == LimitMode::Enforce;
    if enforced {
        let (left, reset) = (verdict.remaining, verdict.reset);
        quota.add(&rule.label, limit.requests.get(), limit.per, left, reset);
    }
    let decision = match verdict.refused {
        None => Decision::Allowed,
        Some(_) if enforced => Decision::Refused,
        Some(_) => Decision::Audited,
    };
    rule.decided(decision, worker.shared.metrics.registry());
    match verdict.refused {
        Some(after) if enforced => Err(RouterError::TooOften(Box::new(TooOften {
            policy: (&*rule.policy).into(),
            rule: (&*limit.name).into(),
            limit: format!("{} in {}", limit.requests, duration::print(limit.per)),
            after,
            quota: std::mem::take(quota),
        }))),
        _ => Ok(()),
    }
}
