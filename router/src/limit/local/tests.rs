use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn rate(requests: u64, per: u64, burst: u64) -> Rate {
    let interval = per.div_ceil(requests);
    Rate { interval, depth: interval * burst }
}

/// The most of `times` that any window of `per` has.
fn most(times: &[u64], per: u64) -> u64 {
    let within = |(i, from): (usize, &u64)| {
        times[i..].iter().take_while(|at| **at < from + per).count() as u64
    };
    times.iter().enumerate().map(within).max().unwrap_or_default()
}

proptest! {
    /// Whatever other keys do, in a table that is far too small for them.
    #[test]
    fn no_key_ever_gets_more_than_limit_and_burst(
        requests in 1u64..20,
        burst in 1u64..20,
        max_keys in 1u32..20,
        steps in prop::collection::vec((0u64..SECOND / 4, 0u64..40), 1..600),
    ) {
        let counts = Counts::new(max_keys);
        let rate = rate(requests, SECOND, burst);
        let mut let_through = vec![Vec::new(); 40];
        let mut now = 1;
        for (wait, key) in steps {
            now += wait / 8;
            let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17);
            if counts.take(rate, hash, now, 1).refused.is_none() {
                let_through[key as usize].push(now);
            }
        }
        for times in let_through {
            prop_assert!(most(&times, SECOND) <= requests + burst);
        }
    }

    /// Alone, a key gets all that it may: a refusal names the very moment.
    #[test]
    fn who_waits_as_told_is_let_through(
        requests in 1u64..1000,
        burst in 1u64..1000,
        costs in prop::collection::vec(1u32..4, 1..200),
    ) {
        let counts = Counts::new(1);
        let rate = rate(requests, SECOND, burst);
        let mut now = SECOND;
        for cost in costs {
            let cost = cost.min(u32::try_from(burst).unwrap());
            let first = counts.take(rate, 7, now, cost);
            if let Some(wait) = first.refused {
                let wait = u64::try_from(wait.as_nanos()).unwrap();
                prop_assert!(counts.take(rate, 7, now + wait - 1, cost).refused.is_some());
                now += wait;
                prop_assert_eq!(counts.take(rate, 7, now, cost).refused, None);
            }
        }
    }
}

#[test]
fn a_burst_then_the_rate() {
    let counts = Counts::new(1);
    let rate = rate(10, 60 * SECOND, 3);
    for left in [2, 1, 0] {
        assert_eq!(counts.take(rate, 1, SECOND, 1).remaining, left);
    }
    let refused = counts.take(rate, 1, SECOND, 1);
    assert_eq!(refused.refused, Some(Duration::from_secs(6)));
    assert_eq!((refused.remaining, refused.reset), (0, Duration::from_secs(18)));
    assert_eq!(counts.take(rate, 2, SECOND, 1).refused, None, "another key");
    assert_eq!(counts.take(rate, 1, 7 * SECOND, 1).refused, None);
}

#[test]
fn a_flood_of_keys_does_not_make_an_abuser_forgotten() {
    let counts = Counts::new(8);
    let rate = rate(10, SECOND, 10);
    let abuser = 42 << 40;
    while counts.take(rate, abuser, 1, 1).refused.is_none() {}
    for key in 1..1000u64 {
        counts.take(rate, key.wrapping_mul(0x9E37_79B9_7F4A_7C15), 1, 1);
        assert!(counts.take(rate, abuser, 1, 1).refused.is_some(), "after {key} keys");
    }
    assert!(counts.forgotten.get() > 0);
}

#[test]
fn workers_share_one_count() {
    let counts = Counts::new(1);
    let rate = rate(1, 3600 * SECOND, 1000);
    let taken = || (0..1000).filter(|_| counts.take(rate, 1, 1, 1).refused.is_none()).count();
    let sum: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(taken)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(sum, 1000);
}
