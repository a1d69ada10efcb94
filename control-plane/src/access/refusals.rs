//! Refusals become entries of the history, few enough that nobody can fill the disk
//! with them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use super::Caller;
use crate::control::{Author, Control};
use crate::store::Action;

/// Refusals of known callers that are written one by one, in a burst.
const BURST: u32 = 10;
/// After which one more may be.
const REFILL: Duration = Duration::from_secs(6);
/// Between entries for what was gathered.
const GATHER: Duration = Duration::from_secs(60);
/// Different things that one such entry names.
const MAX_NAMED: usize = 16;
/// Entries that could not be written and are kept for the next time.
const UNWRITTEN: usize = 16;

/// Counts, by what was counted; what is beyond [`MAX_NAMED`] is counted together.
#[derive(Debug, Default)]
struct Gathered {
    named: BTreeMap<String, u64>,
    others: u64,
}

impl Gathered {
    fn add(&mut self, what: String) {
        if self.named.len() < MAX_NAMED || self.named.contains_key(&what) {
            let count = self.named.entry(what).or_default();
            *count = count.saturating_add(1);
        } else {
            self.others = self.others.saturating_add(1);
        }
    }

    fn total(&self) -> u64 {
        self.named.values().fold(self.others, |sum, count| sum.saturating_add(*count))
    }

    /// The most frequent first.
    fn told(&self) -> String {
        let mut named: Vec<_> = self.named.iter().collect();
        named.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        let mut words: Vec<_> =
            named.into_iter().map(|(what, count)| format!("{what} ({count})")).collect();
        if self.others > 0 {
            words.push(format!("others ({})", self.others));
        }
        words.join(", ")
    }
}

#[derive(Debug, Default)]
struct Unknown {
    peers: Gathered,
    reasons: Gathered,
}

/// How many may be written one by one now.
#[derive(Debug)]
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let more = now.saturating_duration_since(self.since).as_secs() / REFILL.as_secs();
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(more).min(BURST);
        match self.left == BURST {
            true => self.since = now,
            false => self.since += REFILL * more,
        }
        let takes = self.left > 0;
        self.left -= u32::from(takes);
        takes
    }
}

/// What was refused and is not written yet.
#[derive(Debug)]
pub struct Refusals {
    budget: Mutex<Budget>,
    known: Mutex<Gathered>,
    unknown: Mutex<Unknown>,
    unwritten: Mutex<Vec<Author>>,
    gathered: Notify,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            budget: Mutex::new(Budget { left: BURST, since: Instant::now() }),
            known: Mutex::default(),
            unknown: Mutex::default(),
            unwritten: Mutex::default(),
            gathered: Notify::new(),
        }
    }
}

/// Every change of what is locked is a count, which cannot panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Refusals {
    /// Counts a call of somebody who is not known.
    pub fn unknown(&self, peer: Option<IpAddr>, why: &str) {
        let peer = peer.map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_string());
        let mut unknown = lock(&self.unknown);
        unknown.peers.add(peer);
        unknown.reasons.add(why.to_owned());
        drop(unknown);
        self.gathered.notify_one();
    }

    /// What was gathered since the last time, as entries.
    fn take(&self) -> Vec<Author> {
        let known = std::mem::take(&mut *lock(&self.known));
        let unknown = std::mem::take(&mut *lock(&self.unknown));
        let mut entries = Vec::new();
        if known.total() > 0 {
            let reason = format!("{} more refusals: {}", known.total(), known.told());
            entries.push(Author { actor: "several".to_owned(), reason });
        }
        if unknown.peers.total() > 0 {
            let reason = format!(
                "{} calls without a valid token or certificate, from {}: {}",
                unknown.peers.total(),
                unknown.peers.told(),
                unknown.reasons.told()
            );
            entries.push(Author { actor: "unknown".to_owned(), reason });
        }
        entries
    }
}

impl Control {
    /// Writes into the history that a known caller was refused, and says so to it.
    pub async fn refuse(self: &Arc<Self>, caller: &Caller, call: &str, why: &str) -> Status {
        let actor = caller.actor();
        tracing::warn!(actor, call, why, "refused");
        if lock(&self.refusals.budget).take(Instant::now()) {
            let author = Author { actor, reason: format!("{call}: {why}") };
            if let Err(error) = self.note(author, Action::Refused).await {
                tracing::error!(%error, "a refusal is not in the history");
            }
        } else {
            lock(&self.refusals.known).add(format!("{actor}: {call}"));
            self.refusals.gathered.notify_one();
        }
        Status::permission_denied(format!("{} may not call {call}: {why}", caller.name))
    }

    /// Writes what was gathered: at once when nothing was for a minute, and at most
    /// once in a minute, until a stop is asked for, which loses nothing. Who does not
    /// lead has the leader write.
    pub async fn keep_refusals(self: &Arc<Self>) {
        while !self.shutdown.is_requested() {
            tokio::select! {
                () = self.refusals.gathered.notified() => {}
                () = self.shutdown.requested() => {}
            }
            self.write_refusals().await;
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                () = self.shutdown.requested() => {}
            }
        }
        // What came in between.
        self.write_refusals().await;
    }

    async fn write_refusals(self: &Arc<Self>) {
        let mut entries = std::mem::take(&mut *lock(&self.refusals.unwritten));
        entries.extend(self.refusals.take());
        for author in entries {
            if let Err(error) = self.note(author.clone(), Action::Refused).await {
                tracing::warn!(%error, "refusals are not in the history yet");
                let mut unwritten = lock(&self.refusals.unwritten);
                if unwritten.len() < UNWRITTEN {
                    unwritten.push(author);
                }
                drop(unwritten);
                self.refusals.gathered.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_written_and_then_one_now_and_again() {
        let start = Instant::now();
        let mut budget = Budget { left: BURST, since: start };
        let mut taken = |seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..1000).filter(|_| budget.take(now)).count()
        };
        assert_eq!([0, 5, 6, 11, 12, 3600].map(&mut taken), [10, 0, 1, 0, 1, 10]);
    }

    #[test]
    fn what_is_gathered_stays_short_and_counts_all() {
        let refusals = Refusals::default();
        for i in 0..10_000u32 {
            refusals.unknown(Some(IpAddr::from(i.to_be_bytes())), "no token");
        }
        let entries = refusals.take();
        assert_eq!(entries.len(), 1);
        assert!(entries[0].reason.starts_with("10000 calls"), "{}", entries[0].reason);
        assert!(entries[0].reason.contains("others (9984)"), "{}", entries[0].reason);
        assert!(entries[0].reason.len() < 1000, "{}", entries[0].reason);
        assert!(refusals.take().is_empty());
    }
}
