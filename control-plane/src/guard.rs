//! What a change request may bring beside what it asks for: a key by which a retry of
//! it is known, and the revision that it was worked out from.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use weir_mesh::model::Invalid;

use crate::control::ChangeError;
use crate::store::{Desired, Idempotency, ObjectKey, Revision, Store, StoreError};

/// Requests that are remembered: those of the newest entries of the history.
const REMEMBERED: usize = 10_000;

/// Conditions of one change. The default has none.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// By which a retry is known.
    pub idempotency: Option<Idempotency>,
    /// The revision that something must be at.
    pub expected: Option<(Scope, Revision)>,
}

/// Of what a revision is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The last change of one object.
    Object(ObjectKey),
    /// The last change of anything.
    Mesh,
}

impl Guard {
    /// The same, which expects a revision of something; 0: any.
    #[must_use]
    pub fn expecting(mut self, scope: Scope, revision: Revision) -> Self {
        self.expected = (revision != 0).then_some((scope, revision));
        self
    }

    /// Refuses what was worked out from another state than there is. An object that is
    /// not there is the plan's to speak of.
    pub(crate) fn check(&self, desired: &Desired) -> Result<(), ChangeError> {
        let Some((scope, expected)) = &self.expected else { return Ok(()) };
        let (what, found) = match scope {
            // Entries that change nothing, such as refusals, disturb nobody's plan.
            Scope::Mesh if (desired.newest_change..=desired.revision).contains(expected) => {
                return Ok(());
            }
            Scope::Mesh => ("the mesh".to_owned(), Some(desired.newest_change)),
            Scope::Object(key) => (called(key), desired.changed(key)),
        };
        match found {
            Some(found) if found != *expected => Err(ChangeError::Aborted(format!(
                "{what} was last changed in revision {found}, not {expected}; read it again and \
                 retry"
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses to make what was expected to be there.
    pub(crate) fn check_there(&self, desired: &Desired) -> Result<(), ChangeError> {
        match &self.expected {
            Some((Scope::Object(key), expected)) if desired.changed(key).is_none() => {
                Err(ChangeError::Aborted(format!(
                    "{} is not there, and so not at revision {expected}; read it again and retry",
                    called(key)
                )))
            }
            _ => Ok(()),
        }
    }
}

fn called(key: &ObjectKey) -> String {
    match key {
        ObjectKey::Service(name) => name.to_string(),
        other => other.to_string(),
    }
}

/// How a request with a key was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// SHA-256 of the request, and of who made it.
    request: [u8; 32],
    /// What was desired afterwards.
    pub revision: Revision,
    /// It asked for what already was. Such answers are in no history: a restart
    /// forgets them, and the same request asks again.
    pub unchanged: bool,
}

/// The answers to requests with a key. What is in the history is read from there, so
/// that a restart, or another replica, knows it too.
#[derive(Default)]
pub struct Answers(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Entries after this one have not been looked at.
    until: Revision,
    by_key: HashMap<String, Answer>,
    /// Keys, the oldest first.
    order: VecDeque<String>,
}

impl Inner {
    fn insert(&mut self, key: &str, answer: Answer) {
        if self.by_key.insert(key.to_owned(), answer).is_none() {
            self.order.push_back(key.to_owned());
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.by_key.remove(&oldest);
            }
        }
    }

    /// Takes in what the history has more than this. Blocks on the store.
    fn catch_up(&mut self, store: &dyn Store, newest: Revision) -> Result<(), StoreError> {
        if newest <= self.until {
            return Ok(());
        }
        // The store may have more than is shown: nothing between may be passed over.
        let head = store.history(None, 1)?.first().map_or(0, |entry| entry.revision);
        let newest = newest.max(head);
        let missing = usize::try_from(newest - self.until).unwrap_or(usize::MAX);
        let mut entries = store.history(None, missing.min(REMEMBERED))?;
        entries.retain(|entry| entry.revision > self.until);
        for entry in entries.into_iter().rev() {
            if let Some(Idempotency { key, request }) = entry.idempotency {
                let answer = Answer { request, revision: entry.revision, unchanged: false };
                self.insert(&key, answer);
            }
        }
        self.until = newest;
        Ok(())
    }
}

impl Answers {
    /// How this request was answered, if it was. `newest` is the newest revision.
    /// Blocks on the store.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] when another request had the key.
    pub fn find(
        &self,
        store: &dyn Store,
        newest: Revision,
        asked: &Idempotency,
    ) -> Result<Option<Answer>, ChangeError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.catch_up(store, newest)?;
        match inner.by_key.get(&asked.key) {
            None => Ok(None),
            Some(answer) if answer.request == asked.request => Ok(Some(*answer)),
            Some(answer) => {
                let why = format!(
                    "was that of another request, which led to revision {}; a new request needs \
                     a new key",
                    answer.revision
                );
                Err(Invalid::one("idempotencyKey", why).into())
            }
        }
    }

    /// Keeps an answer.
    pub fn remember(&self, asked: &Idempotency, revision: Revision, unchanged: bool) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.insert(&asked.key, Answer { request: asked.request, revision, unchanged });
    }
}
