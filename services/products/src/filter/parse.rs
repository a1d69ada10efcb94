//! Text to filter.

use std::iter::Peekable;
use std::str::{Chars, FromStr};

use super::{Field, Filter, MAX_DEPTH, MAX_LENGTH, MAX_TERMS, Operator, Term, Text};

const FIELDS: &str = "category, sku, currency, name, created_by, price, description or tag";

/// What is wrong with a filter, and where: characters count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Over [`MAX_LENGTH`].
    #[error("has {0} characters; at most {MAX_LENGTH} are allowed")]
    Long(usize),
    /// Over [`MAX_TERMS`].
    #[error("at character {0}: more than {MAX_TERMS} terms")]
    Terms(usize),
    /// Over [`MAX_DEPTH`].
    #[error("at character {0}: more than {MAX_DEPTH} parentheses or negations around a term")]
    Deep(usize),
    /// Something else belongs here.
    #[error("at character {at}: found {found}, expected {expected}")]
    Unexpected {
        /// Where.
        at: usize,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// No such field.
    #[error("at character {at}: there is no field {name:?}; use {FIELDS}")]
    Field {
        /// Where.
        at: usize,
        /// What it was called.
        name: String,
    },
    /// Not a whole number of 64 bits.
    #[error(
        "at character {at}: {text:?} is not a whole number; price counts minor units, such as 1999"
    )]
    Number {
        /// Where.
        at: usize,
        /// What is there.
        text: String,
    },
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let length = text.chars().count();
        if length > MAX_LENGTH {
            return Err(FilterError::Long(length));
        }
        let mut parser = Parser { rest: text.chars().peekable(), at: 1, terms: 0, depth: 0 };
        let filter = parser.expression()?;
        match parser.peek() {
            None => Ok(filter),
            Some(_) => Err(parser.unexpected("AND, OR, another term or the end")),
        }
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    /// Of the next character, from 1.
    at: usize,
    terms: usize,
    depth: usize,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

impl Parser<'_> {
    fn expression(&mut self) -> Result<Filter, FilterError> {
        let mut parts = vec![self.conjunction()?];
        while self.keyword("OR") {
            parts.push(self.conjunction()?);
        }
        Ok(single(parts, Filter::Or))
    }

    fn conjunction(&mut self) -> Result<Filter, FilterError> {
        let mut parts = vec![self.factor()?];
        loop {
            if self.keyword("AND") {
                parts.push(self.factor()?);
                continue;
            }
            match self.peek() {
                None | Some(')') => break,
                _ if self.next_is("OR") => break,
                _ => parts.push(self.factor()?),
            }
        }
        Ok(single(parts, Filter::And))
    }

    fn factor(&mut self) -> Result<Filter, FilterError> {
        if self.depth > MAX_DEPTH {
            return Err(FilterError::Deep(self.at));
        }
        if self.keyword("NOT") || self.accept('-') {
            self.depth += 1;
            let inner = self.factor()?;
            self.depth -= 1;
            return Ok(Filter::Not(Box::new(inner)));
        }
        if self.accept('(') {
            self.depth += 1;
            let inner = self.expression()?;
            self.depth -= 1;
            return if self.accept(')') { Ok(inner) } else { Err(self.unexpected("`)`")) };
        }
        self.term().map(Filter::Term)
    }

    fn term(&mut self) -> Result<Term, FilterError> {
        self.skip_space();
        let at = self.at;
        if self.terms == MAX_TERMS {
            return Err(FilterError::Terms(at));
        }
        self.terms += 1;
        let name = self.word();
        if name.is_empty() {
            return Err(self.unexpected("a field such as category, or `(`"));
        }
        let field = match name.as_str() {
            "price" => return self.price(),
            "tag" => {
                self.operator(&[":"])?;
                return self.text().map(Term::Tag);
            }
            "description" => {
                self.operator(&[":"])?;
                return Ok(Term::Contains { field: Text::Description, value: self.text()? });
            }
            "name" => Field::Name,
            "category" => Field::Category,
            "sku" => Field::Sku,
            "currency" => Field::Currency,
            "created_by" => Field::CreatedBy,
            _ => return Err(FilterError::Field { at, name }),
        };
        let allowed: &[&str] = if field == Field::Name { &["=", "!=", ":"] } else { &["=", "!="] };
        let operator = self.operator(allowed)?;
        let value = self.text()?;
        Ok(match operator {
            ":" => Term::Contains { field: Text::Name, value },
            _ => Term::Is { field, equal: operator == "=", value },
        })
    }

    fn price(&mut self) -> Result<Term, FilterError> {
        let operator = match self.operator(&["<=", ">=", "!=", "=", "<", ">"])? {
            "<=" => Operator::AtMost,
            ">=" => Operator::AtLeast,
            "!=" => Operator::NotEqual,
            "<" => Operator::Less,
            ">" => Operator::Greater,
            _ => Operator::Equal,
        };
        self.skip_space();
        let at = self.at;
        let text = self.word();
        if text.is_empty() {
            return Err(self.unexpected("a whole number"));
        }
        match text.parse() {
            Ok(value) => Ok(Term::Price { operator, value }),
            Err(_) => Err(FilterError::Number { at, text }),
        }
    }

    /// Reads one of `allowed`.
    fn operator(&mut self, allowed: &[&'static str]) -> Result<&'static str, FilterError> {
        self.skip_space();
        let at = self.at;
        let mut text = String::new();
        while text.len() < 2 {
            match self.rest.peek() {
                // Two characters make one operator only when the second is `=`.
                Some(&c)
                    if (text.is_empty() && "=!<>:".contains(c))
                        || (c == '=' && !text.is_empty()) =>
                {
                    text.push(c);
                    self.advance();
                }
                _ => break,
            }
        }
        if let Some(operator) = allowed.iter().find(|o| **o == text) {
            return Ok(operator);
        }
        let expected = allowed.join(" ");
        if text.is_empty() {
            return Err(self.unexpected(&expected));
        }
        Err(FilterError::Unexpected { at, found: format!("`{text}`"), expected })
    }

    /// Reads a value: a word or a quoted string.
    fn text(&mut self) -> Result<String, FilterError> {
        self.skip_space();
        if self.accept('"') {
            return self.quoted();
        }
        let at = self.at;
        let word = self.word();
        if word.is_empty() {
            return Err(self.unexpected("a word or a string in double quotes"));
        }
        if matches!(word.as_str(), "AND" | "OR" | "NOT") {
            let expected =
                format!("a value; write \"{word}\" in double quotes if it is meant as one");
            return Err(FilterError::Unexpected { at, found: word, expected });
        }
        Ok(word)
    }

    fn quoted(&mut self) -> Result<String, FilterError> {
        let mut value = String::new();
        loop {
            match self.rest.peek().copied() {
                None => return Err(self.unexpected("`\"` that ends the string")),
                Some('"') => {
                    self.advance();
                    return Ok(value);
                }
                Some('\\') => {
                    self.advance();
                    match self.rest.peek().copied() {
                        Some(c @ ('"' | '\\')) => value.push(c),
                        _ => return Err(self.unexpected("`\"` or `\\` after `\\`")),
                    }
                    self.advance();
                }
                // It ends strings inside SQLite; no field can contain it.
                Some('\0') => return Err(self.unexpected("a character other than NUL")),
                Some(c) => {
                    value.push(c);
                    self.advance();
                }
            }
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(&c) = self.rest.peek() {
            if !is_word(c) {
                break;
            }
            word.push(c);
            self.advance();
        }
        word
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let is = self.next_is(keyword);
        if is {
            self.word();
        }
        is
    }

    fn next_is(&mut self, keyword: &str) -> bool {
        self.skip_space();
        let mut ahead = self.rest.clone();
        keyword.chars().all(|k| ahead.next() == Some(k)) && !ahead.next().is_some_and(is_word)
    }

    fn accept(&mut self, c: char) -> bool {
        self.skip_space();
        let is = self.rest.peek() == Some(&c);
        if is {
            self.advance();
        }
        is
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.rest.peek().copied()
    }

    fn skip_space(&mut self) {
        while self.rest.peek().is_some_and(|c| c.is_whitespace()) {
            self.advance();
        }
    }

    fn advance(&mut self) {
        self.rest.next();
        self.at += 1;
    }

    fn unexpected(&mut self, expected: &str) -> FilterError {
        let found = match self.rest.peek() {
            Some(c) => format!("{c:?}"),
            None => "the end".to_owned(),
        };
        FilterError::Unexpected { at: self.at, found, expected: expected.to_owned() }
    }
}

fn single(mut parts: Vec<Filter>, combine: fn(Vec<Filter>) -> Filter) -> Filter {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            combine(parts)
        }
        // Not reached: every rule reads at least one part.
        None => combine(parts),
    }
}

#[cfg(test)]
mod tests;
