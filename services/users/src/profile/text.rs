//! Texts of a profile, each with its own rule.

use std::fmt;

/// Why a text is not accepted; it completes "FIELD ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing, or nothing but spaces.
    #[error("is empty")]
    Empty,
    /// Too many characters.
    #[error("has {found} characters, the most is {most}")]
    Long {
        /// How many it has.
        found: usize,
        /// How many it may have.
        most: usize,
    },
    /// A control character or a line break.
    #[error("holds a control character")]
    Control,
    /// Not an address.
    #[error("is not an email address such as ada@example.com")]
    Email,
    /// Not a language tag.
    #[error("is not a language tag (BCP 47) such as en, pt-BR or zh-Hant-TW")]
    Locale,
    /// Not of the form of a time zone's name.
    #[error("is not the name of a time zone such as UTC or Europe/Lisbon")]
    TimeZone,
}

fn bounded(text: &str, most: usize) -> Result<(), TextError> {
    if text.trim().is_empty() {
        return Err(TextError::Empty);
    }
    let found = text.chars().count();
    if found > most {
        return Err(TextError::Long { found, most });
    }
    if text.chars().any(char::is_control) { Err(TextError::Control) } else { Ok(()) }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
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
    /// An email address in the form that the auth service gives it. Whether
    /// mail arrives is the auth service's to know: here it has the rough shape.
    Email
}

impl TryFrom<String> for Email {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        bounded(&text, 254)?;
        let shaped = text.rsplit_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && !text.contains(char::is_whitespace)
        });
        if shaped { Ok(Self(text)) } else { Err(TextError::Email) }
    }
}

text! {
    /// What others see: 1 to 80 characters on one line, without space around.
    DisplayName
}

impl TryFrom<String> for DisplayName {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        let text = text.trim();
        bounded(text, 80)?;
        Ok(Self(text.to_owned()))
    }
}

text! {
    /// A language tag: the shape of RFC 5646, section 2.1, at most 35
    /// characters; whether its subtags are registered is not looked up.
    Locale
}

impl Default for Locale {
    fn default() -> Self {
        Self("en".to_owned())
    }
}

impl TryFrom<String> for Locale {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        bounded(&text, 35)?;
        let mut subtags = text.split('-');
        let language = subtags.next().unwrap_or_default();
        let shaped = (2..=8).contains(&language.len())
            && language.bytes().all(|b| b.is_ascii_alphabetic())
            && subtags.all(|subtag| {
                (1..=8).contains(&subtag.len()) && subtag.bytes().all(|b| b.is_ascii_alphanumeric())
            });
        if shaped { Ok(Self(text)) } else { Err(TextError::Locale) }
    }
}

text! {
    /// A name in the form of the IANA time zone database (`Area/Location`, or
    /// one word such as `UTC`), at most 64 characters. Names are not looked
    /// up: the database grows, and a program of last year must not refuse them.
    TimeZone
}

impl Default for TimeZone {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

impl TryFrom<String> for TimeZone {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        bounded(&text, 64)?;
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
        };
        if text.split('/').count() <= 3 && text.split('/').all(part) {
            Ok(Self(text))
        } else {
            Err(TextError::TimeZone)
        }
    }
}
