//! Logarithms of large numbers.

use std::f64::consts::PI;
use std::sync::LazyLock;

/// Up to here factorials are summed, from here on Stirling's series is as exact.
const SMALL: usize = 256;

static SUMS: LazyLock<[f64; SMALL]> = LazyLock::new(|| {
    let mut sums = [0.0; SMALL];
    let mut sum = 0.0;
    for (number, slot) in (0u32..).zip(&mut sums).skip(1) {
        sum += f64::from(number).ln();
        *slot = sum;
    }
    sums
});

/// ln(n!): Stirling's series to the fifth power, which is off by less than
/// 1/(1680 n^7), below what an `f64` can hold.
pub(super) fn ln_factorial(n: u64) -> f64 {
    if let Some(sum) = usize::try_from(n).ok().and_then(|n| SUMS.get(n)) {
        return *sum;
    }
    let x = n as f64;
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0));
    x.mul_add(x.ln(), -x) + 0.5 * (2.0 * PI * x).ln() + series
}

/// ln of n over k; `k` is at most `n`.
pub(super) fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n.saturating_sub(k))
}

/// ln(sum of exp), without overflow; minus infinity of nothing.
pub(super) fn ln_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + values.map(|value| (value - top).exp()).sum::<f64>().ln()
}

/// `exp`, at most `f64::MAX`.
pub(super) fn exp_capped(value: f64) -> f64 {
    value.exp().min(f64::MAX)
}
