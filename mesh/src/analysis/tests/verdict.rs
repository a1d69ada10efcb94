use std::time::Duration;

use proptest::prelude::*;

use super::{draft, only_success, sample, stratum};
use crate::analysis::{
    Analysis, Bucket, Decision, Draft, Histogram, Metric, Plan, Sample, Stratum,
};

/// Observes the same stratum until there is a verdict; how often that was.
fn until_decided(plan: Plan, stratum: &Stratum, most: u32) -> (Decision, u32) {
    let mut analysis = Analysis::new(plan);
    for times in 0..most {
        let verdict = analysis.verdict();
        if !matches!(verdict, Decision::NotEnough { .. }) {
            return (verdict, times);
        }
        analysis.observe(stratum);
    }
    (analysis.verdict(), most)
}

/// `slow` of 100 requests take 80 ms, the others 10.
fn timed(slow: u64) -> Sample {
    let mut sample = sample(100, 0);
    sample.latency.add(Bucket::of(Duration::from_millis(10)), 100 - slow);
    sample.latency.add(Bucket::of(Duration::from_millis(80)), slow);
    sample
}

fn more(analysis: &Analysis) -> u64 {
    match analysis.verdict() {
        Decision::NotEnough { more: Some(more), .. } => more,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_clearly_bad_canary_is_rolled_back_after_a_few_requests() {
    let (verdict, times) = until_decided(only_success(), &stratum((5, 1), (45, 0)), 100);
    assert!(matches!(verdict, Decision::RollBack { metric: Metric::SuccessRate, .. }));
    assert!(times <= 5, "{times}");
}

#[test]
fn a_rollback_does_not_wait_for_the_floor_and_stays() {
    let plan = Plan::new(Draft { min_requests: 1_000_000, ..draft() }).unwrap();
    let mut analysis = Analysis::new(plan);
    analysis.observe(&stratum((20, 12), (180, 0)));
    let verdict = analysis.verdict();
    assert!(matches!(verdict, Decision::RollBack { .. }));
    for _ in 0..100 {
        analysis.observe(&stratum((1000, 0), (1000, 900)));
    }
    assert!(matches!(analysis.verdict(), Decision::RollBack { .. }));
}

#[test]
fn a_canary_that_never_fails_is_promoted_after_about_as_many_as_foretold() {
    let mut analysis = Analysis::new(only_success());
    let foretold = more(&analysis);
    assert!((300..420).contains(&foretold), "{foretold}");
    analysis.observe(&stratum((100, 0), (900, 0)));
    let then = more(&analysis);
    assert!(then.abs_diff(foretold - 100) <= 20, "{then}");
    let mut took = 0;
    while analysis.verdict() != Decision::Promote {
        analysis.observe(&stratum((1, 0), (9, 0)));
        took += 1;
        assert!(took <= then);
    }
    assert!(took >= then * 8 / 10, "{took} of {then}");
}

#[test]
fn the_floor_holds_a_promotion_back_on_both_sides() {
    let plan = Plan::new(Draft { min_requests: 1000, latency: vec![], ..draft() }).unwrap();
    let mut analysis = Analysis::new(plan);
    analysis.observe(&stratum((999, 0), (5000, 0)));
    assert_eq!(more(&analysis), 1);
    analysis.observe(&stratum((1, 0), (1, 0)));
    assert_eq!(analysis.verdict(), Decision::Promote);
    let mut analysis = Analysis::new(analysis.plan.clone());
    analysis.observe(&stratum((5000, 0), (500, 0)));
    assert_eq!(more(&analysis), 5000);
}

#[test]
fn failures_that_both_share_hold_nothing_against_the_canary() {
    // A database is away for a while: half of everything fails, then nothing.
    let mut analysis = Analysis::new(only_success());
    for _ in 0..20 {
        analysis.observe(&stratum((50, 25), (450, 225)));
    }
    for _ in 0..4000 {
        if analysis.verdict() == Decision::Promote {
            return;
        }
        assert!(!matches!(analysis.verdict(), Decision::RollBack { .. }));
        analysis.observe(&stratum((50, 0), (450, 0)));
    }
    panic!("{:?}", analysis.summary());
}

#[test]
fn one_side_alone_decides_nothing() {
    let mut analysis = Analysis::new(Plan::new(draft()).unwrap());
    for _ in 0..1000 {
        analysis.observe(&Stratum { canary: timed(100), baseline: Sample::default() });
        analysis.observe(&Stratum { canary: Sample::default(), baseline: timed(0) });
    }
    assert!(matches!(analysis.verdict(), Decision::NotEnough { .. }));
    assert_eq!(analysis.summary().canary_requests, 0);
}

#[test]
fn a_slow_tail_is_found_though_nothing_fails() {
    let slow = Stratum { canary: timed(25), baseline: timed(5) };
    let (verdict, times) = until_decided(Plan::new(draft()).unwrap(), &slow, 100);
    assert!(matches!(verdict, Decision::RollBack { metric: Metric::Latency(0.9), .. }));
    assert!(times < 10, "{times}");
}

#[test]
fn equal_latency_is_promoted() {
    let alike = Stratum { canary: timed(5), baseline: timed(5) };
    let (verdict, times) = until_decided(Plan::new(draft()).unwrap(), &alike, 1000);
    assert_eq!(verdict, Decision::Promote);
    assert!(times < 100, "{times}");
}

#[test]
fn a_threshold_is_of_the_past_and_follows_it() {
    let mut analysis = Analysis::new(Plan::new(draft()).unwrap());
    assert_eq!(analysis.summary().metrics[1].slow, None);
    analysis.observe(&Stratum { canary: timed(5), baseline: timed(5) });
    let first = analysis.summary().metrics[1].clone();
    // The stratum that made it was not judged by it.
    assert_eq!(first.canary.requests, 0);
    assert_eq!(
        first.slow.unwrap().baseline_seconds,
        Bucket::of(Duration::from_millis(10)).upper_seconds()
    );
    let mut later = sample(100, 0);
    later.latency.add(Bucket::of(Duration::from_secs(1)), 100);
    for _ in 0..100 {
        analysis.observe(&Stratum { canary: later.clone(), baseline: later.clone() });
    }
    let slow = analysis.summary().metrics[1].slow.unwrap();
    assert_eq!(slow.baseline_seconds, 1.0);
    assert!(slow.canary_seconds >= 1.09);
}

#[test]
fn a_canary_that_was_worse_so_far_gets_no_forecast() {
    let mut analysis = Analysis::new(only_success());
    analysis.observe(&stratum((100, 2), (100, 0)));
    let Decision::NotEnough { more: None, why } = analysis.verdict() else {
        panic!("{:?}", analysis.verdict());
    };
    assert!(why.contains("success rate"), "{why}");
}

#[test]
fn it_is_plain_data() {
    let mut analysis = Analysis::new(Plan::new(draft()).unwrap());
    analysis.observe(&Stratum { canary: timed(25), baseline: timed(5) });
    let json = serde_json::to_string(&analysis).unwrap();
    assert!(json.len() < 5000, "{}", json.len());
    let mut again: Analysis = serde_json::from_str(&json).unwrap();
    assert_eq!(again.canary, analysis.canary);
    assert_eq!(again.past, analysis.past);
    for each in [&mut again, &mut analysis] {
        each.observe(&Stratum { canary: timed(25), baseline: timed(5) });
    }
    // Numbers in JSON may lose their last bit.
    let e_value = |each: &Analysis| each.summary().metrics[1].worse.e_value;
    assert!((e_value(&again) / e_value(&analysis) - 1.0).abs() < 1e-9);
}

type Pair = ((u64, u64), (u64, u64));

fn wild() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..5, 0u64..2000, Just(u64::MAX), Just(1 << 26), any::<u64>()]
}

fn wild_sample() -> impl Strategy<Value = Sample> {
    let pairs = proptest::collection::vec((-160i32..80, wild()), 0..4);
    (wild(), wild(), pairs).prop_map(|(requests, failures, pairs)| {
        let mut latency = Histogram::new();
        for (index, count) in pairs {
            latency.add(Bucket::from_index(index).unwrap(), count);
        }
        Sample { requests, failures, latency }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn wild_counts_give_finite_figures(
        strata in proptest::collection::vec((wild_sample(), wild_sample()), 0..12),
    ) {
        let mut analysis = Analysis::new(Plan::new(draft()).unwrap());
        for (canary, baseline) in strata {
            analysis.observe(&Stratum { canary, baseline });
            for metric in analysis.summary().metrics {
                for evidence in [metric.worse, metric.good_enough] {
                    prop_assert!(evidence.e_value.is_finite() && evidence.e_value >= 0.0);
                }
            }
            if let Decision::RollBack { evidence, .. } = analysis.verdict() {
                prop_assert!(evidence.is_finite());
            }
            let json = serde_json::to_string(&analysis).unwrap();
            prop_assert!(!json.contains("null"), "{}", json);
        }
    }

    #[test]
    fn strata_in_another_order_give_the_same_success_rate(
        tables in proptest::collection::vec(((1u64..300, 0u64..20), (1u64..300, 0u64..20)), 1..20),
        turn in 0usize..20,
    ) {
        let of = |tables: &[Pair]| {
            let mut analysis = Analysis::new(only_success());
            tables.iter().for_each(|(canary, baseline)| analysis.observe(&stratum(*canary, *baseline)));
            let summary = analysis.summary();
            (summary.metrics[0].good_enough.e_value, summary.metrics[0].canary, analysis)
        };
        let mut turned = tables.clone();
        turned.rotate_left(turn % tables.len());
        let ((one, count, first), (other, again, second)) = (of(&tables), of(&turned));
        prop_assert_eq!(count, again);
        prop_assert!((one - other).abs() <= 1e-9 * one.max(other), "{} {}", one, other);
        let worse = |analysis: &Analysis| analysis.success.as_ref().unwrap().worse_now();
        prop_assert!((worse(&first) - worse(&second)).abs() < 1e-6);
    }
}
