use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use weir_mesh::model::{Protocol, Split, Weight};
use weir_mesh::rollout::{Spec, State};

use super::*;

fn service(weights: &[(&str, i32)]) -> Service {
    let weight =
        |(name, weight): &(&str, i32)| (name.parse().unwrap(), Weight::try_from(*weight).unwrap());
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

fn rollout(spec: Value) -> Rollout {
    let spec = Arc::new(Spec::read(&spec, "spec").unwrap());
    Rollout { name: "web-v2".into(), spec, state: State::new("me", 0) }
}

/// Begun, at a step, and the service as it wants it.
fn at(spec: Value, step: usize) -> (Rollout, Service) {
    let mut rollout = rollout(spec);
    let service = service(&[("v1", 100), ("v2", 0)]);
    let (stable, before) = rollout.spec.begin(&service).unwrap();
    (rollout.state.stable, rollout.state.before) = (Some(stable), Some(before));
    rollout.state.enter(step);
    let service = rollout.shape(&service).unwrap();
    (rollout, service)
}

static CLOSED: Gate = Gate::Closed(String::new());

fn all_well<'a>(service: &'a Service, judged: &'a Judged) -> Facts<'a> {
    Facts {
        service: Some(service),
        canary_healthy: true,
        baseline_healthy: true,
        spread: Spread::Done,
        elapsed: Duration::ZERO,
        step_elapsed: Duration::ZERO,
        gate: &CLOSED,
        judged,
        intruder: None,
    }
}

fn plan() -> Value {
    json!({
        "service": "web", "canary": "v2",
        "steps": [{ "setWeight": 10 }, { "pause": { "duration": "10s" } }, { "setWeight": 50 }],
    })
}

#[test]
fn it_begins_only_with_a_healthy_canary() {
    let (rollout, service) = (rollout(plan()), service(&[("v1", 100), ("v2", 0)]));
    let judged = Judged::default();
    let facts = all_well(&service, &judged);
    assert_eq!(decide(&rollout, &facts), Move::Begin);
    let facts = Facts { canary_healthy: false, ..facts };
    assert_eq!(decide(&rollout, &facts), wait("web v2 has no healthy instance"));
}

#[test]
fn a_pause_takes_its_time_and_the_end_is_the_end() {
    let judged = Judged::default();
    let (rollout, service) = at(plan(), 1);
    let facts = all_well(&service, &judged);
    assert!(matches!(decide(&rollout, &facts), Move::Stay { ready: true, .. }));
    let facts = Facts { step_elapsed: Duration::from_secs(10), ..facts };
    assert_eq!(decide(&rollout, &facts), Move::Enter(2));
    let (rollout, service) = at(plan(), 3);
    assert_eq!(decide(&rollout, &all_well(&service, &judged)), Move::Succeed);
}

#[test]
fn who_waits_for_people_is_watched_still() {
    let plan = json!({
        "service": "web", "canary": "v2", "analysis": {},
        "steps": [{ "setWeight": 10 }, { "pause": {} }, { "setWeight": 50 }],
    });
    let (mut rollout, service) = at(plan, 1);
    (rollout.state.phase, rollout.state.paused) = (Phase::Paused, Some(Paused::Step));
    let judged = Judged::default();
    assert!(matches!(decide(&rollout, &all_well(&service, &judged)), Move::Stay { .. }));
    let judged = Judged { verdict: Verdict::RollBack, ..Judged::default() };
    assert!(matches!(decide(&rollout, &all_well(&service, &judged)), Move::Fail(_)));
    rollout.state.paused = Some(Paused::Asked);
    assert!(matches!(decide(&rollout, &all_well(&service, &judged)), Move::Stay { .. }));
}

#[test]
fn a_router_that_refuses_holds_it_up_until_the_deadline() {
    let judged = Judged::default();
    let (rollout, service) = at(plan(), 0);
    let spread = Spread::Pending("r1: refused: no".into());
    let facts = Facts { spread, ..all_well(&service, &judged) };
    assert_eq!(decide(&rollout, &facts), wait("r1: refused: no"));
    let facts = Facts { elapsed: Duration::from_secs(3600), ..facts };
    let Move::Fail(why) = decide(&rollout, &facts) else { panic!() };
    assert_eq!(why, "the deadline of 1h has passed; it waited: r1: refused: no");
}

#[test]
fn weights_of_others_stop_it() {
    let judged = Judged::default();
    let (rollout, _) = at(plan(), 0);
    let other = service(&[("v1", 80), ("v2", 20)]);
    let facts = Facts { intruder: Some("ann (revision 7)"), ..all_well(&other, &judged) };
    let Move::Pause(Paused::Weights, why) = decide(&rollout, &facts) else { panic!() };
    assert_eq!(why, "ann (revision 7) changed the weights of web; resume sets them again");
}

fn any_facts() -> impl Strategy<Value = (bool, bool, bool, bool, u64, u64, bool, u8)> {
    let bools = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (bools, 0..8000u64, 0..8000u64, any::<bool>(), 0..4u8)
        .prop_map(|((a, b, c, d), e, f, g, h)| (a, b, c, d, e, f, g, h))
}

proptest! {
    /// Whatever is known, the canary gets more only if all that its step needs is there.
    #[test]
    fn it_never_goes_forward_on_what_is_not_known(
        step in 0..7usize,
        begun: bool,
        (there, healthy, spread, intact, elapsed, in_step, open, verdict) in any_facts(),
    ) {
        let spec = json!({
            "service": "web", "canary": "v2",
            "steps": [
                { "setWeight": 10 },
                { "pause": { "duration": "1h" } },
                { "gate": { "webhook": { "url": "http://127.0.0.1:1/" } } },
                { "analyze": { "duration": "10s" } },
                { "setMirror": 20 },
                { "setWeight": 50 },
            ],
            "analysis": {},
            "deadline": "2h",
        });
        let (mut rollout, own) = at(spec, step);
        rollout.state.begun = begun;
        let other = service(&[("v1", 1), ("v2", 2)]);
        let service = if intact { &own } else { &other };
        let verdict = [Verdict::None, Verdict::NotEnough, Verdict::Promote, Verdict::RollBack]
            [usize::from(verdict)];
        let judged = Judged { verdict, ..Judged::default() };
        let gate = if open { Gate::Open } else { CLOSED.clone() };
        let facts = Facts {
            service: there.then_some(service),
            canary_healthy: healthy,
            baseline_healthy: true,
            spread: if spread { Spread::Done } else { Spread::Pending(String::new()) },
            elapsed: Duration::from_secs(elapsed),
            step_elapsed: Duration::from_secs(in_step),
            gate: &gate,
            judged: &judged,
            intruder: None,
        };
        let next = decide(&rollout, &facts);
        if let Move::Enter(next) = next {
            prop_assert!(begun && there && healthy && spread && intact);
            prop_assert!(verdict != Verdict::RollBack);
            prop_assert_eq!(next, step + 1);
            match step {
                1 => prop_assert!(in_step >= 3600),
                2 => prop_assert!(open),
                3 => prop_assert!(in_step >= 10 && verdict == Verdict::Promote),
                0 | 5 => prop_assert!(verdict == Verdict::Promote),
                _ => {}
            }
        }
        if next == Move::Succeed {
            prop_assert!(begun && there && healthy && spread && intact && step == 6);
        }
        if elapsed >= 7200 {
            prop_assert!(!matches!(next, Move::Stay { .. }), "the deadline ends all waiting");
        }
    }
}
