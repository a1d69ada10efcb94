//! Where a blocking query is, and how soon to ask again.

use std::time::Duration;

/// At least between two answers: Consul may have much to tell.
const REST: Duration = Duration::from_millis(50);
/// An answer that came sooner did not wait for anything.
const AT_ONCE: Duration = Duration::from_millis(100);
/// The longest rest from a Consul that answers at once with nothing new.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Between questions that Consul cannot hold back.
const UNHELD: Duration = Duration::from_secs(1);
/// After the first failure; doubled by each further one.
const RETRY: Duration = Duration::from_millis(200);
/// After many failures.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// The index of a blocking query.
#[derive(Debug, Default)]
pub struct Cursor {
    index: u64,
    /// Answers in a row that came at once and had nothing new.
    idle: u32,
    failures: u32,
}

impl Cursor {
    /// What to ask with; 0: answer at once.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Takes the index of an answer. True: it went back, so what is known is of
    /// another time, and is asked for anew.
    pub fn took(&mut self, index: u64, after: Duration) -> bool {
        self.failures = 0;
        let went_back = index < self.index;
        let news = index > self.index;
        self.idle = if news || after >= AT_ONCE { 0 } else { self.idle.saturating_add(1) };
        self.index = if went_back { 0 } else { index };
        went_back
    }

    /// The next question is one that is answered at once.
    pub fn restart(&mut self) {
        self.index = 0;
    }

    /// No answer came. The next question is one that is answered at once.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.index = 0;
        self.idle = 0;
    }

    /// How long to rest before the next question.
    #[must_use]
    pub fn pause(&self) -> Duration {
        let doubled = |first: Duration, times: u32, most: Duration| {
            first.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX)).min(most)
        };
        let pause = match (self.failures, self.idle) {
            (0, 0) if self.index == 0 => UNHELD,
            (0, idle) => doubled(REST, idle, LONGEST_REST),
            (failures, _) => doubled(RETRY, failures - 1, LONGEST_RETRY),
        };
        pause.mul_f64(jitter())
    }
}

/// 0.5 to 1.0: those that failed together do not come back together.
fn jitter() -> f64 {
    let mut byte = [0];
    // Without randomness they come back together.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    0.5 + f64::from(byte[0]) / 510.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_index_that_goes_back_is_reset() {
        let mut cursor = Cursor::default();
        assert!(!cursor.took(7, LONG));
        assert_eq!(cursor.index(), 7);
        assert!(cursor.took(6, LONG));
        assert_eq!(cursor.index(), 0);
        assert!(!cursor.took(6, LONG));
        assert_eq!(cursor.index(), 6);
        assert!(cursor.took(0, LONG));
        assert!(cursor.pause() >= UNHELD / 2, "nothing holds the next answer back");
    }

    #[test]
    fn a_failure_is_followed_by_a_question_that_is_answered_at_once() {
        let mut cursor = Cursor::default();
        cursor.took(7, LONG);
        cursor.failed();
        assert_eq!(cursor.index(), 0);
        assert!(cursor.pause() <= RETRY);
        for _ in 0..100 {
            cursor.failed();
        }
        assert!(cursor.pause() <= LONGEST_RETRY && cursor.pause() >= LONGEST_RETRY / 2);
        cursor.took(7, LONG);
        assert!(cursor.pause() <= REST);
    }

    #[test]
    fn a_consul_that_never_waits_is_asked_ever_less() {
        let mut cursor = Cursor::default();
        cursor.took(7, Duration::ZERO);
        for _ in 0..100 {
            cursor.took(7, Duration::ZERO);
        }
        assert!(cursor.pause() >= LONGEST_REST / 2);
        cursor.took(8, Duration::ZERO);
        assert!(cursor.pause() <= REST);
    }
}
