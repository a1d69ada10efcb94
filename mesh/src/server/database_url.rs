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

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use crate::server::Common;

    fn parse(args: &[&str]) -> Result<Common, clap::Error> {
        let command = Common::augment_args(clap::Command::new("test"));
        Common::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn a_service_keeps_its_data_in_a_directory_or_a_database() {
        let here = parse(&["test", "--data", "d"]).unwrap();
        assert!(here.data.is_some() && here.database_url.is_none());
        let error = parse(&["test"]).unwrap_err().to_string();
        assert!(error.contains("--data"), "{error}");

        // Wrong or right, a command line's errors would show it.
        let there = parse(&["test", "--database-url", "s3cret"]).unwrap();
        assert!(there.data.is_none());
        assert_eq!(there.database_url.as_ref().unwrap().reveal(), "s3cret");
        assert!(!format!("{there:?}").contains("s3cret"));
    }
}
