//! Where a shared database is. Its password is shown by nothing.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A database's URL, such as `postgres://user:password@host:5432/name`, as it
/// was given: it is understood when the database is opened, since what refuses
/// a command line shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL with all that is secret in it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(..)")
    }
}
