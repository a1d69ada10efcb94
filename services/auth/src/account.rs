//! What an account is made of.

use std::fmt;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

/// The id of an account: a UUIDv7 (RFC 9562, section 5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserId(pub Uuid);

impl UserId {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for UserId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An instant in whole milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub i64);

impl Millis {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Whole seconds, rounded down.
    #[must_use]
    pub fn seconds(self) -> u64 {
        u64::try_from(self.0 / 1000).unwrap_or(0)
    }

    /// How long after `earlier`; zero when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for Millis {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl From<Millis> for SystemTime {
    fn from(millis: Millis) -> Self {
        Self::UNIX_EPOCH + Duration::from_millis(millis.0.max(0).unsigned_abs())
    }
}

/// Why a part of an account is not accepted; it completes "FIELD ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing was given.
    #[error("is missing")]
    Missing,
    /// Not an address that mail could be sent to.
    #[error("is not an email address such as ada@example.com")]
    Email,
    /// Too few characters.
    #[error("has fewer than {0} characters")]
    Short(usize),
    /// Too many characters.
    #[error("has more than {0} characters")]
    Long(usize),
    /// A control character or a line break.
    #[error("holds a control character")]
    Control,
}

/// An email address as accounts are found by it: lower-case, no space around.
///
/// The local part is a dot-string of RFC 5321, section 4.1.2; the domain has at
/// least two labels (RFC 1035, section 2.3.1); all ASCII, 254 characters at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is before the `@`.
    #[must_use]
    pub fn local_part(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(local, _)| local)
    }
}

impl TryFrom<&str> for Email {
    type Error = Refused;

    fn try_from(text: &str) -> Result<Self, Refused> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Refused::Missing);
        }
        if text.chars().count() > 254 {
            return Err(Refused::Long(254));
        }
        let (local, domain) = text.rsplit_once('@').ok_or(Refused::Email)?;
        if is_dot_string(local) && is_domain(domain) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(Refused::Email)
        }
    }
}

fn is_dot_string(local: &str) -> bool {
    let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    local.len() <= 64 && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(atext))
}

fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.contains('.') && domain.split('.').all(label)
}

/// A password as its owner typed it. It never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The longest that is accepted, in characters.
    pub const MOST: usize = 256;
    /// The shortest that an account may get, in characters.
    pub const LEAST: usize = 8;

    /// One to be checked: nothing is asked of it but that it could be right.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn given(text: String) -> Result<Self, Refused> {
        if text.is_empty() {
            return Err(Refused::Missing);
        }
        if text.chars().count() > Self::MOST {
            Err(Refused::Long(Self::MOST))
        } else {
            Ok(Self(text))
        }
    }

    /// One that an account is to have.
    ///
    /// # Errors
    /// When it has not 8 to 256 characters.
    pub fn chosen(text: String) -> Result<Self, Refused> {
        let password = Self::given(text)?;
        if password.0.chars().count() < Self::LEAST {
            return Err(Refused::Short(Self::LEAST));
        }
        Ok(password)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What others see: 1 to 80 characters on one line, without space around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName(String);

impl DisplayName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name for someone who gave none.
    #[must_use]
    pub fn of(email: &Email) -> Self {
        Self(email.local_part().to_owned())
    }
}

impl TryFrom<&str> for DisplayName {
    type Error = Refused;

    fn try_from(text: &str) -> Result<Self, Refused> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Refused::Missing);
        }
        if text.chars().count() > 80 {
            return Err(Refused::Long(80));
        }
        if text.chars().any(char::is_control) {
            return Err(Refused::Control);
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_found_however_it_is_typed() {
        let typed = Email::try_from("  Ada.Lovelace+x@Example.COM ").unwrap();
        assert_eq!(typed.as_str(), "ada.lovelace+x@example.com");
        assert_eq!(DisplayName::of(&typed).as_str(), "ada.lovelace+x");
    }

    #[test]
    fn what_no_mail_could_reach_is_refused() {
        for text in [
            "ada",
            "@example.com",
            "ada@",
            "ada@example",
            "a b@example.com",
            "ada@exa mple.com",
            ".ada@example.com",
            "a..b@example.com",
            "ada@-example.com",
            "ada@example..com",
            "ada@b\u{fc}cher.example",
            "ada@example.com\nbcc:x@y.z",
            "a@b@c@",
        ] {
            assert_eq!(Email::try_from(text), Err(Refused::Email), "{text:?}");
        }
        assert_eq!(Email::try_from(" "), Err(Refused::Missing));
        let long = format!("a@{}.com", "b".repeat(260));
        assert_eq!(Email::try_from(long.as_str()), Err(Refused::Long(254)));
    }

    #[test]
    fn a_password_is_measured_in_characters_and_never_shown() {
        let text = |n| "\u{e9}".repeat(n);
        assert_eq!(Password::chosen(text(7)), Err(Refused::Short(8)));
        assert!(Password::chosen(text(8)).is_ok());
        assert!(Password::chosen(text(256)).is_ok());
        assert_eq!(Password::chosen(text(257)), Err(Refused::Long(256)));
        let shown = format!("{:?}", Password::chosen("correct horse".into()).unwrap());
        assert!(!shown.contains("horse"));
    }

    proptest! {
        #[test]
        fn a_normalised_address_is_its_own_normal_form(
            text in "[a-zA-Z0-9+_.]{1,20}@[a-zA-Z0-9-]{1,10}\\.[a-z]{2,4}"
        ) {
            if let Ok(once) = Email::try_from(text.as_str()) {
                prop_assert_eq!(Email::try_from(once.as_str()), Ok(once.clone()));
            }
        }
    }
}
