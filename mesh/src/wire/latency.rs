//! Histograms of latency between protobuf and what verdicts are made of.

use weir_proto::weir::mesh::v1 as pb;

use crate::analysis::{Histogram, HistogramError};

impl From<&Histogram> for pb::LatencyHistogram {
    fn from(histogram: &Histogram) -> Self {
        let mut last = 0;
        let (indexes, counts) = histogram
            .to_sparse()
            .into_iter()
            .map(|(index, count)| (index - std::mem::replace(&mut last, index), count))
            .unzip();
        Self { indexes, counts }
    }
}

impl TryFrom<&pb::LatencyHistogram> for Histogram {
    type Error = HistogramError;

    /// What has more indexes than counts, or the other way round, ends with the
    /// shorter of the two.
    fn try_from(sent: &pb::LatencyHistogram) -> Result<Self, HistogramError> {
        let mut index = 0_i32;
        let pairs = sent.indexes.iter().zip(&sent.counts).map(|(distance, count)| {
            index = index.saturating_add(*distance);
            (index, *count)
        });
        Self::from_sparse(pairs)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_histogram_goes_there_and_back(micros: Vec<u32>) {
            let mut histogram = Histogram::new();
            for micros in micros {
                histogram.record(Duration::from_micros(micros.into()));
            }
            let sent = pb::LatencyHistogram::from(&histogram);
            prop_assert_eq!(Histogram::try_from(&sent), Ok(histogram));
        }

        #[test]
        fn no_bytes_make_it_panic(indexes: Vec<i32>, counts: Vec<u64>) {
            let _ = Histogram::try_from(&pb::LatencyHistogram { indexes, counts });
        }
    }

    #[test]
    fn indexes_are_the_first_and_then_distances() {
        let mut histogram = Histogram::new();
        for millis in [1, 1, 1000, 2000] {
            histogram.record(Duration::from_millis(millis));
        }
        let sent = pb::LatencyHistogram::from(&histogram);
        assert_eq!((sent.indexes, sent.counts), (vec![-80, 79, 8], vec![2, 1, 1]));
    }
}
