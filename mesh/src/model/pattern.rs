//! Regular expressions that people write into routes.

use std::fmt;
use std::sync::Arc;

use regex_lite::{Regex, RegexBuilder};

/// Bytes of a compiled pattern. It bounds the time of a match, which grows with
/// the product of the pattern's size and the text's.
const SIZE: usize = 64 * 1024;

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing was given.
    #[error("is empty; write a regular expression (RE2 syntax)")]
    Empty,
    /// Too many characters.
    #[error("has {0} bytes; a pattern has at most {max}", max = Pattern::MAX)]
    Long(usize),
    /// Not understood, or too large when compiled.
    #[error("{0:?} is not a regular expression (RE2 syntax): {1}")]
    Syntax(String, String),
}

/// A regular expression in RE2's syntax that must match a text as a whole. Takes
/// linear time. Classes are those of ASCII; `\p` is not known. Cheap to clone.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    regex: Arc<Regex>,
}

impl Pattern {
    /// Longest pattern, in bytes.
    pub const MAX: usize = 1024;

    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`PatternError`] when it is empty, too long, too large when compiled, or
    /// no regular expression.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > Self::MAX {
            return Err(PatternError::Long(text.len()));
        }
        let compile = |text: &str| {
            let built = RegexBuilder::new(text).size_limit(SIZE).nest_limit(50).build();
            built.map_err(|error| error.to_string())
        };
        // By itself first: `a)(b` must not close the group around it.
        let whole = format!(r"\A(?:{text})\z");
        let regex = compile(text).and_then(|_| compile(&whole));
        let regex =
            regex.map_err(|why| PatternError::Syntax(text.chars().take(80).collect(), why))?;
        Ok(Self { text: text.into(), regex: Arc::new(regex) })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of `text` fits.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_must_fit() {
        let pattern = Pattern::parse("/v[0-9]+|/w").unwrap();
        assert!(pattern.matches("/v12") && pattern.matches("/w"));
        for other in ["", "/v", "/v1/", "x/v1", "/v1\n", "/wx"] {
            assert!(!pattern.matches(other), "{other:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "(", "a)(b", "[b-a]", "a{2,1}", r"\p{Greek}", "(?=a)", &"a".repeat(1025)] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        // Small to write, large to run.
        assert!(Pattern::parse("(((a{30}){30}){30}){30}").is_err());
    }

    #[test]
    fn time_is_linear() {
        let pattern = Pattern::parse("(a*)*b").unwrap();
        assert!(!pattern.matches(&"a".repeat(20_000)));
    }
}
