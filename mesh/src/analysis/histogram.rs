//! Durations counted in exponential buckets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Number of buckets of a [`Histogram`].
pub const BUCKETS: usize = 240;

/// OpenTelemetry's index of the first bucket: (2^-20, 2^(-159/8)] seconds.
const FIRST: i32 = -160;

/// Buckets in each doubling: OpenTelemetry's scale 3.
const PER_OCTAVE: i32 = 8;

/// Where the eight boundaries of a doubling lie in nanoseconds, with the highest
/// bit shifted to bit 63: floor(10^9 * 2^(i/8) * 2^s) for i of -7..=0. One second is
/// no power of two of nanoseconds, so they are the same eight in every doubling.
/// A whole number is above a boundary exactly if it is above its floor.
const EDGES: [u64; 8] = [
    0x81ff_a7a9_549c_a6e3,
    0x8dc3_b896_0164_a7d9,
    0x9a98_6705_4d51_2391,
    0xa896_5f74_bf06_5071,
    0xb7d8_8a12_d0dd_9ea0,
    0xc87c_3e7d_03cd_bec3,
    0xdaa1_7c2c_d195_55db,
    0xee6b_2800_0000_0000,
];

/// One of the buckets, from the fastest to the slowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u8);

impl Bucket {
    /// The slowest: all that took more than 2^(79/8) s, about 939 s.
    pub const LAST: Self = Self(BUCKETS as u8 - 1);

    /// The bucket of a duration, exact to the nanosecond: no logarithm, no branch
    /// on the value, for it is called for every request.
    #[must_use]
    pub fn of(duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1);
        let zeros = nanos.leading_zeros();
        let aligned = nanos << zeros;
        let above: i32 = EDGES.iter().map(|edge| i32::from(aligned > *edge)).sum();
        // 2^29 ns is the power of two below one second.
        let octave = 63 - i32::try_from(zeros).unwrap_or(0) - 29;
        let position = PER_OCTAVE * (octave - 1) + above - FIRST;
        Self(position.clamp(0, i32::from(Self::LAST.0)) as u8)
    }

    /// From OpenTelemetry's index at scale 3; -160 to 79.
    #[must_use]
    pub fn from_index(index: i32) -> Option<Self> {
        let position = u8::try_from(index.checked_sub(FIRST)?).ok()?;
        (position <= Self::LAST.0).then_some(Self(position))
    }

    /// OpenTelemetry's index at scale 3: what is in the bucket took more than
    /// 2^(index/8) s and at most 2^((index+1)/8) s.
    #[must_use]
    pub fn index(self) -> i32 {
        i32::from(self.0) + FIRST
    }

    /// The upper boundary in seconds; it belongs to the bucket.
    #[must_use]
    pub fn upper_seconds(self) -> f64 {
        (f64::from(self.index() + 1) / f64::from(PER_OCTAVE)).exp2()
    }

    /// The bucket that is `steps` slower: each is 2^(1/8), 9.05 %, more. The
    /// last one where there is none.
    #[must_use]
    pub fn slower(self, steps: u8) -> Self {
        Self(self.0.saturating_add(steps).min(Self::LAST.0))
    }

    /// How many buckets slower something is that takes `1 + tolerance` times as
    /// long, rounded up, so that it is never less than asked for.
    #[must_use]
    pub fn steps(tolerance: f64) -> u8 {
        // 9.05 % is one step, though its logarithm may come out a hair above 1.
        let exact = tolerance.max(0.0).ln_1p() / std::f64::consts::LN_2 * f64::from(PER_OCTAVE);
        (exact - 1e-9).ceil().clamp(0.0, 255.0) as u8
    }
}

/// Counts of durations in 240 exponential buckets from 2^-20 s (0.95 us) to
/// 2^10 s (1,024 s); what is faster or slower is counted in the first or last one.
///
/// The buckets are those of OpenTelemetry's exponential histogram at scale 3 (its
/// metrics data model, "ExponentialHistogram"): each ends 2^(1/8) times where it
/// begins, so a quantile read from it is at most 9.05 % more than the true one,
/// and never less. Counts stop at `u64::MAX`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(i32, u64)>", into = "Vec<(i32, u64)>")]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        self.add(Bucket::of(duration), 1);
    }

    /// Counts `count` durations of a bucket.
    pub fn add(&mut self, bucket: Bucket, count: u64) {
        if let Some(slot) = self.counts.get_mut(usize::from(bucket.0)) {
            *slot = slot.saturating_add(count);
        }
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (slot, count) in self.counts.iter_mut().zip(&other.counts) {
            *slot = slot.saturating_add(*count);
        }
    }

    /// How many are in a bucket.
    #[must_use]
    pub fn count(&self, bucket: Bucket) -> u64 {
        self.counts.get(usize::from(bucket.0)).copied().unwrap_or(0)
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many took longer than `bucket`'s upper boundary: exact, for boundaries
    /// are where buckets end.
    #[must_use]
    pub fn count_above(&self, bucket: Bucket) -> u64 {
        let slower = self.counts.iter().skip(usize::from(bucket.0) + 1);
        slower.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The bucket that holds the `q`-quantile (0.0 to 1.0): at most `1 - q` of all
    /// took longer than its upper boundary. `None` if nothing was counted or `q`
    /// is not a number.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Bucket> {
        let total = self.total();
        if total == 0 || q.is_nan() {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
        let mut seen = 0u64;
        for (position, count) in (0u8..).zip(&self.counts) {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return Some(Bucket(position));
            }
        }
        None
    }

    /// Halves every count (rounded down), so that what is old weighs less.
    pub fn halve(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
    }

    /// The buckets that are not empty, as OpenTelemetry's index (-160 to 79) and
    /// count, by rising index.
    #[must_use]
    pub fn to_sparse(&self) -> Vec<(i32, u64)> {
        let all = (FIRST..).zip(self.counts.iter().copied());
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// Reads what [`Histogram::to_sparse`] gave.
    ///
    /// # Errors
    /// An index outside -160..=79, indexes that do not rise, or counts that add
    /// up to more than 2^64 - 1.
    pub fn from_sparse(
        pairs: impl IntoIterator<Item = (i32, u64)>,
    ) -> Result<Self, HistogramError> {
        let mut histogram = Self::new();
        let mut last: Option<Bucket> = None;
        let mut total = 0u64;
        for (index, count) in pairs {
            let bucket = Bucket::from_index(index).ok_or(HistogramError::Index(index))?;
            if last.is_some_and(|last| bucket <= last) {
                return Err(HistogramError::Order(index));
            }
            last = Some(bucket);
            total = total.checked_add(count).ok_or(HistogramError::Overflow)?;
            histogram.add(bucket, count);
        }
        Ok(histogram)
    }
}

impl From<Histogram> for Vec<(i32, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.to_sparse()
    }
}

impl TryFrom<Vec<(i32, u64)>> for Histogram {
    type Error = HistogramError;

    fn try_from(pairs: Vec<(i32, u64)>) -> Result<Self, HistogramError> {
        Self::from_sparse(pairs)
    }
}

/// Why pairs of index and count are no [`Histogram`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// No such bucket.
    #[error("bucket {0} does not exist; at scale 3 send -160 to 79")]
    Index(i32),
    /// Not sorted, or twice.
    #[error(
        "bucket {0} comes after one that is as slow or slower; send each once, by rising index"
    )]
    Order(i32),
    /// Too many.
    #[error("the counts add up to more than 2^64 - 1")]
    Overflow,
}
