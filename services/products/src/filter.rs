//! The filter language of `ListProducts`: its terms, how they are written, and
//! what they mean in SQL.
//!
//! ```text
//! expression = conjunction { "OR" conjunction }
//! conjunction = factor { ["AND"] factor }
//! factor     = ("NOT" | "-") factor | "(" expression ")" | term
//! term       = field operator value
//! ```

mod parse;
mod sql;

use std::fmt;

pub use parse::FilterError;

/// Most characters of a filter.
pub const MAX_LENGTH: usize = 1000;
/// Most terms of a filter.
pub const MAX_TERMS: usize = 32;
/// Most parentheses and negations around a term.
pub const MAX_DEPTH: usize = 16;

/// A condition on products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Any of two or more.
    Or(Vec<Filter>),
    /// All of two or more.
    And(Vec<Filter>),
    /// The opposite.
    Not(Box<Filter>),
    /// One comparison.
    Term(Term),
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// `field = value`, or `!=` when not `equal`.
    Is {
        /// What is compared.
        field: Field,
        /// False for `!=`.
        equal: bool,
        /// Compared byte by byte.
        value: String,
    },
    /// `price OP value`.
    Price {
        /// How they compare.
        operator: Operator,
        /// Minor units.
        value: i64,
    },
    /// `field:value`: contains it, ignoring the case of ASCII letters.
    Contains {
        /// Where to look.
        field: Text,
        /// What for.
        value: String,
    },
    /// `tag:value`.
    Tag(String),
}

/// Fields that are compared as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `category`
    Category,
    /// `sku`
    Sku,
    /// `currency`
    Currency,
    /// `name`
    Name,
    /// `created_by`
    CreatedBy,
}

/// Fields that are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// `name`
    Name,
    /// `description`
    Description,
}

/// How numbers compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

impl Field {
    fn name(self) -> &'static str {
        match self {
            Self::Category => "category",
            Self::Sku => "sku",
            Self::Currency => "currency",
            Self::Name => "name",
            Self::CreatedBy => "created_by",
        }
    }
}

impl Text {
    fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Description => "description",
        }
    }
}

impl Operator {
    fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }
}

/// Prints the filter so that it reads back as the same.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Or(parts) => join(f, parts, " OR ", |p| matches!(p, Self::Or(_))),
            Self::And(parts) => {
                join(f, parts, " AND ", |p| matches!(p, Self::Or(_) | Self::And(_)))
            }
            Self::Not(inner) => {
                f.write_str("NOT ")?;
                inner.print(f, matches!(**inner, Self::Or(_) | Self::And(_)))
            }
            Self::Term(term) => write!(f, "{term}"),
        }
    }
}

impl Filter {
    fn print(&self, f: &mut fmt::Formatter<'_>, parentheses: bool) -> fmt::Result {
        if parentheses { write!(f, "({self})") } else { write!(f, "{self}") }
    }
}

fn join(
    f: &mut fmt::Formatter<'_>,
    parts: &[Filter],
    separator: &str,
    parentheses: impl Fn(&Filter) -> bool,
) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        part.print(f, parentheses(part))?;
    }
    Ok(())
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is { field, equal, value } => {
                f.write_str(field.name())?;
                f.write_str(if *equal { "=" } else { "!=" })?;
                quote(f, value)
            }
            Self::Price { operator, value } => write!(f, "price{}{value}", operator.symbol()),
            Self::Contains { field, value } => {
                write!(f, "{}:", field.name())?;
                quote(f, value)
            }
            Self::Tag(value) => {
                f.write_str("tag:")?;
                quote(f, value)
            }
        }
    }
}

fn quote(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            f.write_str("\\")?;
        }
        write!(f, "{c}")?;
    }
    f.write_str("\"")
}
