//! Profiles, and what may be in them.

mod preferences;
mod text;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use uuid::Uuid;

pub use preferences::{Preferences, PreferencesError};
pub use text::{DisplayName, Email, Locale, TextError, TimeZone};

/// The id of an account and its profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserId(Uuid);

/// Not a user id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a UUID such as 01938a5e-7f2c-7c3d-9b1a-2f4e6d8c0a1b")]
pub struct InvalidUserId;

impl std::str::FromStr for UserId {
    type Err = InvalidUserId;

    /// Only the form with hyphens (RFC 9562, section 4), in either case.
    fn from_str(text: &str) -> Result<Self, InvalidUserId> {
        if text.len() != 36 {
            return Err(InvalidUserId);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| InvalidUserId)
    }
}

impl std::fmt::Display for UserId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl UserId {
    /// Its 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// An instant in whole milliseconds, as the store keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(i64);

impl Millis {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn unix(self) -> i64 {
        self.0
    }

    /// The reverse of [`Self::unix`]; what lies before 1970 counts as 1970.
    #[must_use]
    pub fn from_unix(millis: i64) -> Self {
        Self(millis.max(0))
    }
}

impl From<Millis> for SystemTime {
    fn from(millis: Millis) -> Self {
        Self::UNIX_EPOCH + Duration::from_millis(millis.0.unsigned_abs())
    }
}

/// What one user shows and prefers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Whose it is.
    pub id: UserId,
    /// As the auth service knows it.
    pub email: Email,
    /// What others see.
    pub display_name: DisplayName,
    /// For language and formats.
    pub locale: Locale,
    /// For times.
    pub time_zone: TimeZone,
    /// Settings of applications.
    pub preferences: Preferences,
    /// When it was made.
    pub created_at: Millis,
    /// When it last changed.
    pub updated_at: Millis,
}

/// What is to become of the preferences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreferencesChange {
    /// These and no others from now on.
    Replace(Preferences),
    /// Added to what is there; an empty value removes its key.
    Merge(Preferences),
}

/// A change of a profile: what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The new name.
    pub display_name: Option<DisplayName>,
    /// The new locale.
    pub locale: Option<Locale>,
    /// The new time zone.
    pub time_zone: Option<TimeZone>,
    /// Changed settings.
    pub preferences: Option<PreferencesChange>,
}

impl Profile {
    /// The profile of a new account.
    #[must_use]
    pub fn new(id: UserId, email: Email, display_name: DisplayName) -> Self {
        let now = Millis::now();
        Self {
            id,
            email,
            display_name,
            locale: Locale::default(),
            time_zone: TimeZone::default(),
            preferences: Preferences::default(),
            created_at: now,
            updated_at: now,
        }
    }

    /// Makes a change as a whole. Says whether anything is different now.
    ///
    /// # Errors
    /// When the merged preferences would be too many; then nothing changed.
    pub fn apply(&mut self, change: Change) -> Result<bool, PreferencesError> {
        let mut next = self.clone();
        match change.preferences {
            Some(PreferencesChange::Replace(preferences)) => next.preferences = preferences,
            Some(PreferencesChange::Merge(more)) => {
                next.preferences = next.preferences.merge(more)?
            }
            None => {}
        }
        next.display_name = change.display_name.unwrap_or(next.display_name);
        next.locale = change.locale.unwrap_or(next.locale);
        next.time_zone = change.time_zone.unwrap_or(next.time_zone);
        if next == *self {
            return Ok(false);
        }
        // Never equal to the one before, even within a millisecond or when the
        // clock was set back: whoever compares times must see the change.
        next.updated_at = Millis::now().max(Millis(self.updated_at.0 + 1));
        *self = next;
        Ok(true)
    }
}
