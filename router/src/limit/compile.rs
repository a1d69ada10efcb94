//! RateLimitPolicies -> rules, whose counts outlive tables (invariant 4).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use weir_mesh::policy::rate_limit::{RateLimit, Store};
use weir_mesh::policy::{Policy, PolicySpec};
use weir_mesh::telemetry::metrics::Registry;

use super::local::{Counts, Rate};
use super::rule::{Attachment, Rule};
use super::store::Client;

/// Compiles policies, and remembers what earlier tables counted.
pub struct Compiler {
    registry: Registry,
    policies: HashMap<Arc<str>, Compiled>,
    stores: HashMap<Store, Weak<Client>>,
    epoch: u64,
}

struct Compiled {
    spec: Arc<RateLimit>,
    rules: Vec<Arc<Rule>>,
    epoch: u64,
}

impl Compiler {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry, policies: HashMap::new(), stores: HashMap::new(), epoch: 0 }
    }

    /// Begins a table: policies that are not asked for until
    /// [`Compiler::sweep`] are forgotten.
    pub fn begin(&mut self) {
        self.epoch += 1;
    }

    /// Ends a table.
    pub fn sweep(&mut self) {
        let epoch = self.epoch;
        self.policies.retain(|_, compiled| compiled.epoch == epoch);
        self.stores.retain(|_, client| client.strong_count() > 0);
    }

    /// Adds the rules of a policy to those that hold somewhere, once each.
    pub fn attach(&mut self, policy: &Policy, gateway_only: bool, to: &mut Vec<Attachment>) {
        for rule in self.rules(policy) {
            match to.iter_mut().find(|held| Arc::ptr_eq(&held.rule, rule)) {
                Some(held) => held.gateway_only &= gateway_only,
                None => to.push(Attachment { rule: rule.clone(), gateway_only }),
            }
        }
    }

    fn rules(&mut self, policy: &Policy) -> &[Arc<Rule>] {
        let PolicySpec::RateLimit(spec) = &policy.spec else { return &[] };
        let known = self.policies.remove(&policy.name);
        let compiled = match known {
            Some(known) if *known.spec == **spec => Compiled { epoch: self.epoch, ..known },
            known => Compiled {
                spec: spec.clone(),
                rules: self.compile(&policy.name, spec, known.as_ref()),
                epoch: self.epoch,
            },
        };
        &self.policies.entry(policy.name.clone()).or_insert(compiled).rules
    }

    fn compile(
        &mut self,
        policy: &Arc<str>,
        spec: &RateLimit,
        before: Option<&Compiled>,
    ) -> Vec<Arc<Rule>> {
        let client = spec.store.as_ref().map(|store| self.client(store));
        let rule = |rule: &weir_mesh::policy::rate_limit::LimitRule| {
            // With the same numbers and the same key, what was counted holds.
            let same = before.and_then(|before| before.rules.iter().find(|r| r.rule == *rule));
            let (counts, hasher) = match same {
                Some(same) => (same.counts.clone(), same.hasher.clone()),
                None => (Arc::new(Counts::new(rule.max_keys)), Default::default()),
            };
            Arc::new(Rule {
                policy: policy.clone(),
                label: format!("{policy}/{}", rule.name).into(),
                mode: spec.mode,
                on_failure: spec.on_failure,
                store: client
                    .clone()
                    .filter(|_| rule.scope == weir_mesh::policy::rate_limit::Scope::Global),
                counts,
                rate: Rate::of(rule),
                hasher,
                counters: OnceLock::new(),
                rule: rule.clone(),
            })
        };
        spec.rules.iter().map(rule).collect()
    }

    /// Policies that name the same server share a connection.
    fn client(&mut self, store: &Store) -> Arc<Client> {
        if let Some(client) = self.stores.get(store).and_then(Weak::upgrade) {
            return client;
        }
        let client = Client::start(store.clone(), &self.registry);
        self.stores.insert(store.clone(), Arc::downgrade(&client));
        client
    }
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new(Registry::new())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(requests: u32, others: u32) -> Policy {
        let spec = json!({
            "targetRefs": [{ "kind": "Gateway", "name": "gateway" }],
            "rules": [
                { "name": "a", "limit": { "requests": requests, "per": "1m" } },
                { "name": "b", "limit": { "requests": others, "per": "1m" } },
            ],
        });
        Policy::read("RateLimitPolicy", "api", &spec, "").unwrap()
    }

    #[test]
    fn counts_stay_while_their_rule_does() {
        let mut compiler = Compiler::default();
        let mut build = |policy: Option<Policy>| {
            let mut rules = Vec::new();
            compiler.begin();
            if let Some(policy) = policy {
                compiler.attach(&policy, true, &mut rules);
                compiler.attach(&policy, false, &mut rules);
            }
            compiler.sweep();
            rules
        };
        let counts = |rules: &[Attachment], i: usize| Arc::as_ptr(&rules[i].rule.counts);
        let first = build(Some(policy(5, 5)));
        assert_eq!((first.len(), first[0].gateway_only), (2, false));
        let same = build(Some(policy(5, 5)));
        assert!(Arc::ptr_eq(&first[0].rule, &same[0].rule));
        let other = build(Some(policy(5, 6)));
        assert_eq!(counts(&other, 0), counts(&first, 0), "its numbers are the same");
        assert_ne!(counts(&other, 1), counts(&first, 1));
        build(None);
        let new = build(Some(policy(5, 6)));
        assert_ne!(counts(&new, 0), counts(&first, 0));
    }
}
