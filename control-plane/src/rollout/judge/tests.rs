use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use weir_mesh::rollout::State;

use super::*;

fn rollout(analysis: serde_json::Value) -> Rollout {
    let spec = json!({
        "service": "web", "stable": "v1", "canary": "v2",
        "steps": [{ "setWeight": 10 }, { "analyze": { "minRequests": 7 } }],
        "analysis": analysis,
    });
    let spec = Arc::new(Spec::read(&spec, "spec").unwrap());
    let mut state = State::new("me", 0);
    state.stable = Some("v1".parse().unwrap());
    state.enter(0);
    Rollout { name: "web-v2".into(), spec, state }
}

fn edge(version: &str, requests: u64, failures: u64, revision: u32) -> pb::Edge {
    let mut latency = Histogram::new();
    (0..requests).for_each(|_| latency.record(Duration::from_millis(20)));
    pb::Edge {
        destination: "web".into(),
        version: version.into(),
        requests,
        failures,
        revision,
        latency: Some((&latency).into()),
        ..Default::default()
    }
}

#[test]
fn without_reports_there_is_no_verdict() {
    let judge = Judge::new(&rollout(json!({})).spec);
    assert_eq!(judge.judged().verdict, Verdict::NotEnough);
}

#[test]
fn what_older_weights_decided_is_left_out() {
    let rollout = rollout(json!({}));
    let mut judge = Judge::new(&rollout.spec);
    judge.hear(&vec![edge("v1", 900, 0, 4), edge("v2", 100, 100, 4)], &rollout, 5);
    assert_eq!(judge.judged().canary_requests, 0);
    judge.hear(&vec![edge("v1", 900, 0, 5), edge("v2", 100, 100, 5)], &rollout, 5);
    let judged = judge.judged();
    assert_eq!((judged.canary_requests, judged.verdict), (100, Verdict::RollBack));
    assert!(judged.message.starts_with("success-rate: 0.00 % against 100.00 %"), "{judged:?}");
}

#[test]
fn a_good_canary_is_promoted_and_each_step_wants_requests_of_its_own() {
    let mut rollout = rollout(json!({}));
    let mut judge = Judge::new(&rollout.spec);
    for _ in 0..100 {
        judge.hear(&vec![edge("v1", 90, 0, 1), edge("v2", 10, 0, 1)], &rollout, 1);
    }
    assert_eq!(judge.judged().verdict, Verdict::Promote, "{:?}", judge.judged());
    rollout.state.enter(1);
    judge.step(&rollout);
    let judged = judge.judged();
    assert_eq!((judged.verdict, judged.more), (Verdict::NotEnough, Some(7)));
    judge.hear(&vec![edge("v1", 90, 0, 2), edge("v2", 7, 0, 2)], &rollout, 2);
    assert_eq!(judge.judged().verdict, Verdict::Promote);
}

#[test]
fn a_source_that_fails_to_answer_holds_up_and_one_that_says_bad_ends_it() {
    let query = json!({
        "name": "errors", "address": "http://127.0.0.1:1", "query": "up", "max": 1.0,
        "failureLimit": 1,
    });
    let rollout = rollout(json!({ "prometheus": [query], "minRequests": 1 }));
    let mut judge = Judge::new(&rollout.spec);
    for _ in 0..100 {
        judge.hear(&vec![edge("v1", 90, 0, 1), edge("v2", 10, 0, 1)], &rollout, 1);
    }
    let asked = Instant::now();
    let good = || Ok(Heard::Good(Some(0.5)));
    judge.source(Said { source: 0, asked, value: good() });
    assert_eq!(judge.judged().verdict, Verdict::NotEnough, "it is about what was before");
    judge.ready(true, asked);
    let mut say = |value| {
        judge.source(Said { source: 0, asked, value });
        judge.judged()
    };
    let judged = say(Err("has no data".into()));
    assert_eq!(judged.verdict, Verdict::NotEnough);
    assert_eq!(judged.message, "errors: not enough data: has no data");
    assert_eq!(say(good()).verdict, Verdict::Promote);
    assert_eq!(say(Err("is down".into())).verdict, Verdict::NotEnough, "silence is no good word");
    assert_eq!(say(good()).verdict, Verdict::Promote);
    assert_eq!(say(Ok(Heard::Bad(Some(2.0)))).verdict, Verdict::Promote, "one may fail");
    let judged = say(Ok(Heard::Bad(Some(3.0))));
    assert_eq!(judged.verdict, Verdict::RollBack);
    assert_eq!(judged.message, "errors: 3 is above 1; 2 failures, 1 may be");
}
