use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{Protocol, Service, Split, Weight};

fn wrong(spec: Value) -> Vec<String> {
    let error = Spec::read(&spec, "spec").unwrap_err();
    error.0.iter().map(ToString::to_string).collect()
}

#[test]
fn all_that_is_wrong_is_told_at_once_by_its_path() {
    let found = wrong(json!({
        "service": "web",
        "canary": "v2",
        "stable": "v2",
        "steps": [
            { "setWeight": 5, "pause": {} },
            { "gate": { "webhook": { "url": "ftp://x", "timeout": "2m" } } },
            { "setAudience": {} },
            { "analyze": {} },
            { "setWeight": 100 },
            { "pause": {} },
        ],
        "deadline": "200h",
    }));
    assert_eq!(
        found[..6],
        [
            "spec.stable: is the canary; name the version that serves now",
            "spec.steps[0]: must have exactly one of setWeight, setAudience, setMirror, pause, \
             gate, analyze",
            "spec.steps[1].gate.webhook.url: is not a URL; write one such as \
             http://checks.example:8080/canary",
            "spec.steps[1].gate.webhook.timeout: 2m is not possible; use 100ms to 1m",
            "spec.steps[2].setAudience: must have exactly one of headers, claim",
            "spec.steps[3].analyze: has nothing to wait for; set analysis, or {} of it for the \
             defaults",
        ]
    );
    let found = wrong(json!({ "service": "web", "canary": "v2", "analysis": {
        "falseRollback": 0.9, "latency": [{ "quantile": 0.2 }],
        "prometheus": [{ "name": "x", "address": "http://p", "query": "up" }],
    }}));
    let paths: Vec<_> = found.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        paths[..3],
        [
            "spec.analysis.falseRollback",
            "spec.analysis.latency[0].quantile",
            "spec.analysis.prometheus[0]",
        ]
    );
}

#[test]
fn what_is_left_out_has_a_meaning() {
    let spec = Spec::read(&json!({ "service": "web", "canary": "v2" }), "spec").unwrap();
    let weights: Vec<_> = spec.steps.iter().map(ToString::to_string).collect();
    let wanted = ["setWeight 5", "setWeight 10", "setWeight 25", "setWeight 50", "setWeight 100"];
    assert_eq!(weights, wanted);
    assert!(spec.analysis.is_some_and(|analysis| analysis.during == During::AllSteps));
    let spec = json!({ "service": "web", "canary": "v2", "strategy": "BlueGreen" });
    let spec = Spec::read(&spec, "spec").unwrap();
    assert_eq!(spec.steps, [Step::Pause(None), Step::SetWeight(100)]);
    assert_eq!((spec.analysis, spec.deadline), (None, Duration::from_secs(3600)));
}

#[test]
fn secrets_of_webhooks_are_not_shown() {
    let spec = json!({ "service": "web", "canary": "v2", "steps": [{ "gate": { "webhook": {
        "url": "https://x/y?key=s3cret", "headers": { "authorization": "Bearer s3cret" },
    }}}]});
    let spec = Spec::read(&spec, "spec").unwrap();
    let shown = format!("{:?} {}", spec.steps, spec.steps[0]);
    assert!(!shown.contains("s3cret") && shown.contains("https://x/y"), "{shown}");
    assert!(spec.asks_outside());
}

fn service(weights: &[(&str, u32)]) -> Service {
    let weight = |(name, weight): &(&str, u32)| {
        (name.parse().unwrap(), Weight::try_from(i64::from(*weight)).unwrap())
    };
    Service {
        name: "web".parse().unwrap(),
        protocol: Protocol::Http1,
        split: Split::new(weights.iter().map(weight).collect(), None).unwrap(),
        addresses: Default::default(),
        virtual_addresses: Vec::new(),
        audiences: Vec::new(),
        mirror: None,
        managed_by: None,
        descriptor_set: Default::default(),
    }
}

fn begun(spec: Value, service: &Service) -> Rollout {
    let spec = Arc::new(Spec::read(&spec, "spec").unwrap());
    let mut state = State::new("me", 1);
    let (stable, before) = spec.begin(service).unwrap();
    (state.stable, state.before) = (Some(stable), Some(before));
    state.enter(0);
    Rollout { name: "r".into(), spec, state }
}

#[test]
fn it_starts_only_from_what_it_can_return_to() {
    let spec = |more: Value| {
        let mut spec = json!({ "service": "web", "canary": "v2" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Spec::read(&spec, "spec").unwrap()
    };
    let begin = |spec: &Spec, weights: &[(&str, u32)]| spec.begin(&service(weights)).map(|b| b.0);
    let plain = spec(json!({}));
    assert_eq!(begin(&plain, &[("v1", 90), ("v2", 10)]).unwrap().as_str(), "v1");
    let canary = "v2".parse().unwrap();
    assert_eq!(begin(&plain, &[("v1", 0), ("v2", 10)]), Err(ShapeError::Same(canary)));
    let other = begin(&plain, &[("v0", 1), ("v1", 90)]);
    assert_eq!(other, Err(ShapeError::Other("v0".parse().unwrap())));
    let named = spec(json!({ "stable": "v0", "baseline": "v1" }));
    assert_eq!(begin(&named, &[("v0", 1), ("v1", 90)]).unwrap().as_str(), "v0");
}

proptest! {
    /// At any step the weights add up to 100, the baseline has no more than the canary,
    /// and going back gives exactly what there was.
    #[test]
    fn weights_add_up_and_the_way_back_is_exact(
        weights in prop::collection::vec(0..=100u32, 1..6),
        v1 in 1..1000u32,
        v2 in 0..1000u32,
        with_baseline: bool,
        mirror in 0..=100u32,
    ) {
        let before = service(&[("v1", v1), ("v2", v2)]);
        let mut steps: Vec<_> = weights.iter()
            .filter(|weight| **weight < 100)
            .map(|weight| json!({ "setWeight": weight }))
            .collect();
        steps.insert(0, json!({ "setMirror": mirror }));
        let mut spec = json!({ "service": "web", "canary": "v2", "steps": steps });
        if with_baseline {
            spec["baseline"] = "v1-fresh".into();
        }
        let mut rollout = begun(spec, &before);
        let mut now = before.clone();
        for step in 0..rollout.spec.steps.len() {
            rollout.state.enter(step);
            now = rollout.shape(&now).unwrap();
            prop_assert!(rollout.intact(&now));
            let weight = |name: &str| now.split.weight(name).unwrap_or_default().get();
            if let Some(set) = rollout.spec.weight_at(step) {
                prop_assert_eq!(weight("v2"), set);
                prop_assert_eq!(weight("v1") + weight("v2") + weight("v1-fresh"), 100);
                prop_assert!(weight("v1-fresh") <= set);
            }
            // Its state survives being written down.
            let read = State::from_json(&rollout.state.to_json("")).unwrap();
            prop_assert_eq!(&read, &rollout.state);
        }
        rollout.state.phase = Phase::RolledBack;
        let back = rollout.shape(&now).unwrap();
        let weight = |service: &Service, name| service.split.weight(name).unwrap_or_default();
        for name in ["v1", "v2", "v1-fresh"] {
            prop_assert_eq!(weight(&back, name), weight(&before, name));
        }
        prop_assert_eq!((&back.audiences, &back.mirror), (&before.audiences, &before.mirror));
    }
}
