//! What a notification is. A value of these types is always within its limits.

use std::fmt;

use uuid::Uuid;

use crate::webhook::WebhookUrl;

/// Why a value cannot be a field of a notification. The text goes on after the
/// field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Nothing was given.
    #[error("is required")]
    Required,
    /// More characters than fit.
    #[error("has {got} characters; at most {most} are allowed")]
    Long {
        /// Characters in the value.
        got: usize,
        /// Characters allowed.
        most: usize,
    },
    /// A character that has no place there.
    #[error("{character:?} at character {at} is not allowed; use {allowed}")]
    Character {
        /// The first such character.
        character: char,
        /// Its place, counted from 1.
        at: usize,
        /// What may be used.
        allowed: &'static str,
    },
    /// Not a UUID.
    #[error("{0:?} is not a notification id: it is the UUID in `notificationId` of a notification")]
    Id(String),
}

fn check(
    text: &str,
    least: usize,
    most: usize,
    allowed: &'static str,
    is: impl Fn(char) -> bool,
) -> Result<(), FieldError> {
    let got = text.chars().count();
    if got < least {
        return Err(FieldError::Required);
    }
    if got > most {
        return Err(FieldError::Long { got, most });
    }
    match text.chars().enumerate().find(|(_, c)| !is(*c)) {
        Some((i, character)) => Err(FieldError::Character { character, at: i + 1, allowed }),
        None => Ok(()),
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The value as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = FieldError;

            fn try_from(text: String) -> Result<Self, FieldError> {
                let check: fn(&str) -> Result<(), FieldError> = $check;
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text! {
    /// Whose inbox: 1 to 128 printable ASCII characters without spaces.
    UserId, |text| check(text, 1, 128, "printable ASCII without spaces", |c| c.is_ascii_graphic())
}
text! {
    /// What it is about: 1 to 64 of `a-z 0-9 . _ -`.
    Kind, |text| check(text, 1, 64, "a-z 0-9 . _ -", |c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c)
    })
}
text! {
    /// One line, 1 to 200 characters.
    Title, |text| check(text, 1, 200, "no control characters", |c| !c.is_control())
}
text! {
    /// 0 to 8,000 characters; no NUL.
    Body, |text| check(text, 0, 8000, "no NUL", |c| c != '\0')
}
text! {
    /// What makes a repeated request the same request: 1 to 128 printable ASCII
    /// characters.
    IdempotencyKey, |text| {
        check(text, 1, 128, "printable ASCII", |c| c.is_ascii_graphic() || c == ' ')
    }
}

/// How urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Can wait.
    Low,
    /// As most.
    Normal,
    /// Touches the user's security.
    High,
}

impl Kind {
    /// By the first part of the name.
    #[must_use]
    pub fn priority(&self) -> Priority {
        match self.0.split('.').next() {
            Some("security") => Priority::High,
            Some("digest" | "marketing") => Priority::Low,
            _ => Priority::Normal,
        }
    }
}

impl Body {
    /// The beginning in one line, at most 80 characters.
    #[must_use]
    pub fn snippet(&self) -> String {
        const MOST: usize = 80;
        // Words are cut off at the end only, so this many are always enough.
        let words: Vec<_> = self.0.split_whitespace().take(MOST).collect();
        let line = words.join(" ");
        if line.chars().count() <= MOST {
            return line;
        }
        let mut short: String = line.chars().take(MOST - 1).collect();
        short.truncate(short.trim_end().len());
        short.push('\u{2026}');
        short
    }
}

/// A notification's id: a UUID (RFC 9562), version 7 for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NotificationId(Uuid);

impl NotificationId {
    /// One that was never used.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl TryFrom<&str> for NotificationId {
    type Error = FieldError;

    fn try_from(text: &str) -> Result<Self, FieldError> {
        if text.is_empty() {
            return Err(FieldError::Required);
        }
        match Uuid::try_parse(text) {
            Ok(id) => Ok(Self(id)),
            Err(_) => Err(FieldError::Id(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What a new notification is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Whose inbox.
    pub user: UserId,
    /// What it is about.
    pub kind: Kind,
    /// One line.
    pub title: Title,
    /// The rest.
    pub body: Body,
    /// Where to send it besides the inbox.
    pub webhook: Option<WebhookUrl>,
}

/// A notification in an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Its id.
    pub id: NotificationId,
    /// Its place in the order of arrival.
    pub sequence: i64,
    /// What the sender gave.
    pub draft: Draft,
    /// Microseconds since 1970 (UTC).
    pub create_time: i64,
    /// Microseconds since 1970 (UTC); `None`: not read yet.
    pub read_time: Option<i64>,
}

/// A webhook that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// What was to be sent.
    pub notification: Notification,
    /// Attempts that were made.
    pub attempts: u32,
    /// What the last one came to.
    pub error: String,
    /// Microseconds since 1970 (UTC).
    pub dead_time: i64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_out_of_their_limits_are_refused() {
        assert!(UserId::try_from("a b".to_owned()).is_err());
        assert!(Kind::try_from("Welcome".to_owned()).is_err());
        assert!(Title::try_from("two\nlines".to_owned()).is_err());
        assert!(Title::try_from("é".repeat(200)).is_ok());
        assert!(Title::try_from("é".repeat(201)).is_err());
        assert!(Body::try_from("x".repeat(8001)).is_err());
        assert!(IdempotencyKey::try_from(String::new()).is_err());
    }

    #[test]
    fn the_kind_decides_the_priority() {
        let priority = |kind: &str| Kind::try_from(kind.to_owned()).unwrap().priority();
        assert_eq!(priority("security"), Priority::High);
        assert_eq!(priority("security.login"), Priority::High);
        assert_eq!(priority("security-tips"), Priority::Normal);
        assert_eq!(priority("digest.weekly"), Priority::Low);
        assert_eq!(priority("welcome"), Priority::Normal);
    }

    proptest! {
        #[test]
        fn a_snippet_is_one_short_line(text in "[^\0]{0,300}") {
            let snippet = Body::try_from(text.clone()).unwrap().snippet();
            prop_assert!(snippet.chars().count() <= 80);
            prop_assert!(!snippet.contains(['\n', '\r', '\t']));
            prop_assert_eq!(snippet.is_empty(), text.trim().is_empty());
        }
    }
}
