//! E-values by exact enumeration, and the bounds that make them fast.

use proptest::prelude::*;

use crate::analysis::Count;
use crate::analysis::logs::{ln_choose, ln_factorial};
use crate::analysis::margin::Margin;
use crate::analysis::regression::Regression;
use crate::analysis::table::Table;

fn table(canary: (u64, u64), baseline: (u64, u64)) -> Table {
    Table::new(Count::new(canary.0, canary.1), Count::new(baseline.0, baseline.1)).unwrap()
}

fn worse(tolerated: f64, tables: &[Table]) -> f64 {
    ln_worse(tolerated, tables).exp()
}

fn ln_worse(tolerated: f64, tables: &[Table]) -> f64 {
    let mut regression = Regression::new(tolerated);
    tables.iter().for_each(|table| regression.observe(table));
    regression.ln_e()
}

fn good(margin: f64, tables: &[Table]) -> f64 {
    let mut test = Margin::new(margin);
    tables.iter().for_each(|table| test.observe(table));
    test.ln_e().exp()
}

fn binomial(n: u64, p: f64, x: u64) -> f64 {
    let part = |count: u64, share: f64| if count == 0 { 0.0 } else { count as f64 * share.ln() };
    (ln_choose(n, x) + part(x, p) + part(n - x, 1.0 - p)).exp()
}

/// The expectation of `value` over the bad counts of one table.
fn expect(n: u64, m: u64, p: f64, q: f64, value: impl Fn(Table) -> f64) -> f64 {
    let all = (0..=n).flat_map(|x| (0..=m).map(move |y| (x, y)));
    all.map(|(x, y)| binomial(n, p, x) * binomial(m, q, y) * value(table((n, x), (m, y)))).sum()
}

/// The share that has `ratio` times the odds of `share`.
fn with_odds(share: f64, ratio: f64) -> f64 {
    let odds = ratio * share / (1.0 - share);
    odds / (1.0 + odds)
}

#[test]
fn factorials_are_those_of_the_sum() {
    let mut sum = 0.0;
    for n in 1..3000u64 {
        sum += (n as f64).ln();
        let stirling = ln_factorial(n);
        assert!((stirling - sum).abs() < 1e-13 * sum.max(1.0) * 10.0, "{n}: {stirling} {sum}");
    }
}

#[test]
fn the_largest_tables_are_judged_too() {
    let worse = ln_worse(1.0, &[table((40_000_000, 900_000), (20_000_000, 300_000))]);
    assert!(worse.is_finite() && worse > 1000.0, "{worse}");
    let alike = ln_worse(1.0, &[table((33_000_000, 16_000_000), (33_000_000, 16_000_000))]);
    assert!(alike.is_finite() && alike < 0.0, "{alike}");
}

#[test]
fn one_bad_request_is_worth_what_the_split_says() {
    // One bad one of 1 + 9: the canary's with odds psi to 9.
    let expected: f64 = [1.3, 1.7, 2.5, 4.0, 8.0, 20.0, 100.0, 1000.0]
        .iter()
        .map(|psi| psi * 10.0 / (psi + 9.0) / 8.0)
        .sum();
    assert!((worse(1.0, &[table((1, 1), (9, 0))]) / expected - 1.0).abs() < 1e-9);
}

#[test]
fn without_failures_the_margin_alone_says_how_many() {
    // ln(1 / 0.05) / 0.01 is 300, the mixture's weight and tuning take 40 % more.
    let tables = vec![table((1, 0), (1, 0)); 420];
    assert!(good(0.01, &tables[..290]) < 20.0);
    assert!(good(0.01, &tables) > 20.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn worse_has_expectation_one_at_most_when_it_is_not(
        n in 1u64..8, m in 1u64..8,
        q in 0.001f64..0.95,
        tolerated in 1.0f64..5.0,
        less in 0.0f64..=1.0,
    ) {
        let p = with_odds(q, tolerated * less);
        let mean = expect(n, m, p, q, |table| worse(tolerated, &[table]));
        prop_assert!(mean <= 1.0 + 1e-9, "{}", mean);
    }

    #[test]
    fn worse_has_expectation_one_over_two_strata_that_differ(
        n in 1u64..4, m in 1u64..4, q in 0.01f64..0.9, drift in 0.01f64..0.9,
    ) {
        let mean = expect(n, m, q, q, |first| {
            expect(m, n, drift, drift, |second| worse(1.0, &[first, second]))
        });
        prop_assert!(mean <= 1.0 + 1e-9 && mean > 0.99, "{}", mean);
    }

    #[test]
    fn good_has_expectation_one_at_most_when_it_is_not(
        n in 1u64..8, m in 1u64..8,
        margin in 0.001f64..0.49,
        share in 0.0f64..1.0,
        more in 0.0f64..1.0,
    ) {
        let q = share * (1.0 - margin);
        let p = (q + margin + more * (1.0 - q - margin)).min(1.0);
        let mean = expect(n, m, p, q, |table| good(margin, &[table]));
        prop_assert!(mean <= 1.0 + 1e-9, "{}", mean);
    }

    #[test]
    fn good_holds_on_the_average_over_strata_of_the_same_split(
        n in 1u64..4, m in 1u64..4,
        margin in 0.01f64..0.3,
        q in 0.0f64..0.3,
        swing in 0.0f64..1.0,
    ) {
        // One stratum less than the margin apart, the other more, as much.
        let low = margin * (1.0 - swing);
        let high = margin * (1.0 + swing);
        let mean = expect(n, m, q + low, q, |first| {
            expect(n, m, q + high, q, |second| good(margin, &[first, second]))
        });
        prop_assert!(mean <= 1.0 + 1e-9, "{}", mean);
    }

    #[test]
    fn one_more_bad_request_never_helps_the_canary(
        n in 2u64..500, m in 1u64..500, x in 0u64..499, y in 0u64..500,
        margin in 0.001f64..0.4,
    ) {
        let x = x.min(n - 1);
        let (less, more) = (table((n, x), (m, y)), table((n, x + 1), (m, y)));
        prop_assert!(ln_worse(1.0, &[more]) >= ln_worse(1.0, &[less]) - 1e-9);
        prop_assert!(good(margin, &[more]) <= good(margin, &[less]) * (1.0 + 1e-9));
    }

    #[test]
    fn the_window_loses_nothing_that_matters(
        n in 1u64..3000, m in 1u64..3000, x in 0.0f64..1.0, y in 0.0f64..1.0,
    ) {
        let table = table(
            (n, (n as f64 * x * x * x) as u64),
            (m, (m as f64 * y * y * y) as u64),
        );
        let found = ln_worse(1.0, &[table]);
        let exact = exact_worse(&table);
        prop_assert!(found <= exact + 1e-12 && found > exact - 1e-8, "{} {}", found, exact);
    }
}

/// The e-value's logarithm with every term of every sum.
fn exact_worse(table: &Table) -> f64 {
    use crate::analysis::logs::ln_sum_exp;
    let (n, m, k) = (table.canary.requests, table.baseline.requests, table.bad());
    let sum = |ln_psi: f64| {
        ln_sum_exp(
            (k.saturating_sub(m)..=k.min(n))
                .map(move |j| ln_choose(n, j) + ln_choose(m, k - j) + j as f64 * ln_psi),
        )
    };
    let each = [1.3f64, 1.7, 2.5, 4.0, 8.0, 20.0, 100.0, 1000.0]
        .into_iter()
        .map(|psi| table.canary.bad as f64 * psi.ln() + sum(0.0) - sum(psi.ln()));
    ln_sum_exp(each) - 8f64.ln()
}
