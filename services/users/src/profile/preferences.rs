//! Settings that applications keep with a profile.

use std::collections::BTreeMap;

/// How many entries a profile may have.
const MOST_ENTRIES: usize = 64;
const MOST_KEY: usize = 64;
const MOST_VALUE: usize = 1024;

/// Why preferences are not accepted; it completes "preferences ...".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreferencesError {
    /// More entries than a profile may have.
    #[error("would be {0} entries, the most is {MOST_ENTRIES}")]
    Many(usize),
    /// The name of an entry. It is not repeated: it may be long.
    #[error("has a key that is not 1 to {MOST_KEY} of a-z A-Z 0-9 . _ -")]
    Key,
    /// The value of an entry.
    #[error("has {found} characters at key {key}, the most is {MOST_VALUE}")]
    Value {
        /// Which entry.
        key: String,
        /// How long its value is.
        found: usize,
    },
}

/// At most 64 entries; a key is 1 to 64 of `a-z A-Z 0-9 . _ -`, a value at most
/// 1024 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferences(BTreeMap<String, String>);

impl Preferences {
    /// # Errors
    /// When there are too many entries, or one is not as it must be.
    pub fn new(
        entries: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, PreferencesError> {
        let entries: BTreeMap<_, _> = entries.into_iter().collect();
        if entries.len() > MOST_ENTRIES {
            return Err(PreferencesError::Many(entries.len()));
        }
        for (key, value) in &entries {
            let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if !plain || key.is_empty() || key.len() > MOST_KEY {
                return Err(PreferencesError::Key);
            }
            let found = value.chars().count();
            if found > MOST_VALUE {
                return Err(PreferencesError::Value { key: key.clone(), found });
            }
        }
        Ok(Self(entries))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// These with `more` on top; an empty value removes its key.
    ///
    /// # Errors
    /// [`PreferencesError::Many`].
    pub fn merge(mut self, more: Self) -> Result<Self, PreferencesError> {
        for (key, value) in more.0 {
            if value.is_empty() {
                self.0.remove(&key);
            } else {
                self.0.insert(key, value);
            }
        }
        if self.0.len() > MOST_ENTRIES {
            Err(PreferencesError::Many(self.0.len()))
        } else {
            Ok(self)
        }
    }
}
