use std::cmp::Ordering;
use std::time::Duration;

use proptest::prelude::*;

use crate::analysis::{BUCKETS, Bucket, Histogram, HistogramError};

/// `factor` to the power of 8 times 2^`shift`, as digits of base 2^32, lowest first.
fn eighth_power(factor: u64, shift: u32) -> Vec<u32> {
    let mut digits = vec![1u32];
    let mut times = |by: u32| {
        let mut carry = 0u64;
        for digit in &mut digits {
            let product = u64::from(*digit) * u64::from(by) + carry;
            *digit = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            digits.push(carry as u32);
        }
    };
    let factor = u32::try_from(factor).unwrap();
    for _ in 0..8 {
        times(factor);
    }
    for _ in 0..shift {
        times(2);
    }
    digits
}

/// Compares n ns with 2^(index/8) s by whole numbers alone: n^8 with 10^72 * 2^index.
fn compare(nanos: u64, index: i32) -> Ordering {
    let up = u32::try_from(index).unwrap_or(0);
    let down = u32::try_from(-index).unwrap_or(0);
    let (left, right) = (eighth_power(nanos, down), eighth_power(1_000_000_000, up));
    left.len().cmp(&right.len()).then_with(|| left.iter().rev().cmp(right.iter().rev()))
}

fn check(nanos: u64) {
    let index = Bucket::of(Duration::from_nanos(nanos)).index();
    assert!(index == -160 || compare(nanos, index) == Ordering::Greater, "{nanos} in {index}");
    assert!(index == 79 || compare(nanos, index + 1) != Ordering::Greater, "{nanos} in {index}");
}

#[test]
fn every_boundary_is_where_the_definition_has_it() {
    for index in -160..=15 {
        let about = 1e9 * (f64::from(index) / 8.0).exp2();
        for nanos in (about as u64).saturating_sub(2)..=about as u64 + 2 {
            check(nanos.max(1));
        }
    }
    assert_eq!(Bucket::of(Duration::from_secs(1)).index(), -1);
    assert_eq!(Bucket::of(Duration::from_nanos(1_000_000_001)).index(), 0);
    for power in 0..10 {
        let exact = Duration::from_secs(1 << power);
        assert_eq!(Bucket::of(exact).index(), 8 * power - 1);
        assert_eq!(Bucket::of(exact + Duration::from_nanos(1)).index(), 8 * power);
    }
}

#[test]
fn what_is_out_of_range_is_in_the_first_or_the_last() {
    assert_eq!(Bucket::of(Duration::ZERO).index(), -160);
    assert_eq!(Bucket::of(Duration::from_nanos(953)).index(), -160);
    assert_eq!(Bucket::of(Duration::MAX), Bucket::LAST);
    assert_eq!(Bucket::of(Duration::from_secs(1025)), Bucket::LAST);
    assert_eq!(Bucket::LAST.index(), 79);
    assert_eq!(Bucket::LAST.slower(3), Bucket::LAST);
}

#[test]
fn a_tolerance_is_rounded_up_to_whole_buckets() {
    let steps = [(0.0, 0), (0.05, 1), (0.090_507_732_665_257_66, 1), (0.1, 2), (1.0, 8)];
    for (tolerance, expected) in steps {
        assert_eq!(Bucket::steps(tolerance), expected, "{tolerance}");
    }
}

#[test]
fn an_empty_one_has_no_quantile() {
    assert_eq!(Histogram::new().quantile(0.5), None);
    assert_eq!(Histogram::new().to_sparse(), vec![]);
}

#[test]
fn bad_pairs_are_refused() {
    let read = |pairs: &[(i32, u64)]| Histogram::from_sparse(pairs.iter().copied());
    assert_eq!(read(&[(-161, 1)]), Err(HistogramError::Index(-161)));
    assert_eq!(read(&[(80, 1)]), Err(HistogramError::Index(80)));
    assert_eq!(read(&[(i32::MIN, 1)]), Err(HistogramError::Index(i32::MIN)));
    assert_eq!(read(&[(3, 1), (3, 1)]), Err(HistogramError::Order(3)));
    assert_eq!(read(&[(3, 1), (2, 1)]), Err(HistogramError::Order(2)));
    assert_eq!(read(&[(2, u64::MAX), (3, 1)]), Err(HistogramError::Overflow));
    assert!(serde_json::from_str::<Histogram>("[[80,1]]").is_err());
}

proptest! {
    #[test]
    fn the_table_agrees_with_the_definition(nanos in 1u64..(1 << 32)) {
        check(nanos);
    }

    #[test]
    fn longer_than_four_seconds_too(micros in 4_000_000u64..1_024_000_000) {
        // Further up doubles are good enough, away from the boundaries.
        let exact = (micros as f64 / 1e6).log2() * 8.0;
        prop_assume!((exact - exact.round()).abs() > 1e-9);
        let index = Bucket::of(Duration::from_micros(micros)).index();
        prop_assert_eq!(index, exact.floor() as i32);
    }

    #[test]
    fn sparse_and_json_give_it_back(pairs in proptest::collection::vec((-160i32..80, 0u64..1 << 40), 0..50)) {
        let mut histogram = Histogram::new();
        for (index, count) in pairs {
            histogram.add(Bucket::from_index(index).unwrap(), count);
        }
        let sparse = histogram.to_sparse();
        prop_assert!(sparse.len() <= BUCKETS);
        prop_assert_eq!(Histogram::from_sparse(sparse), Ok(histogram.clone()));
        let json = serde_json::to_string(&histogram).unwrap();
        prop_assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), histogram);
    }

    #[test]
    fn merging_is_recording_both(
        left in proptest::collection::vec(1u64..1 << 40, 0..50),
        right in proptest::collection::vec(1u64..1 << 40, 0..50),
    ) {
        let of = |nanos: &[u64]| {
            let mut histogram = Histogram::new();
            nanos.iter().for_each(|n| histogram.record(Duration::from_nanos(*n)));
            histogram
        };
        let mut merged = of(&left);
        merged.merge(&of(&right));
        prop_assert_eq!(merged.total(), (left.len() + right.len()) as u64);
        prop_assert_eq!(merged, of(&[left, right].concat()));
    }

    #[test]
    fn a_quantile_is_never_too_low_and_at_most_a_bucket_too_high(
        mut nanos in proptest::collection::vec(1_000u64..1 << 39, 1..200),
        q in 0.0f64..=1.0,
    ) {
        let mut histogram = Histogram::new();
        nanos.iter().for_each(|n| histogram.record(Duration::from_nanos(*n)));
        nanos.sort_unstable();
        let rank = ((q * nanos.len() as f64).ceil() as usize).clamp(1, nanos.len());
        let exact = nanos[rank - 1] as f64 / 1e9;
        let bucket = histogram.quantile(q).unwrap();
        let read = bucket.upper_seconds();
        prop_assert!(exact <= read * (1.0 + 1e-12) && read <= exact * 1.0906, "{} {}", exact, read);
        prop_assert!(histogram.count_above(bucket) as f64 <= (1.0 - q) * nanos.len() as f64 + 1e-6);
    }
}
