//! Pages of a list: its order, and where a page ends.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::filter::Filter;
use crate::product::Product;

/// Most products on one page.
pub const MAX_PAGE: u32 = 1000;
const DEFAULT_PAGE: u32 = 50;

/// What a list is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// When it was created.
    Created,
    /// Amount in minor units.
    Price,
    /// Name, ignoring the case of ASCII letters.
    Name,
}

/// The order of a list. Equals are in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Ordered by this.
    pub key: Key,
    /// Largest first.
    pub descending: bool,
}

/// Why a page cannot be given. The text goes on after the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// `orderBy` is not one we know.
    #[error("{0:?} is no order; use created, price or name, and ` desc` after it for the reverse")]
    Order(String),
    /// `pageSize` is too large.
    #[error("{0} is above {MAX_PAGE}")]
    Size(u32),
    /// `pageToken` was not made here.
    #[error("is not a token of this list; use nextPageToken as it was given, or leave it out")]
    Token,
    /// `pageToken` was made for another list.
    #[error("was given for another filter or orderBy; keep them the same, or leave the token out")]
    OtherList,
}

impl FromStr for Order {
    type Err = PageError;

    fn from_str(text: &str) -> Result<Self, PageError> {
        let refused = || PageError::Order(text.chars().take(80).collect());
        let mut words = text.split_ascii_whitespace();
        let key = match words.next() {
            None | Some("created") => Key::Created,
            Some("price") => Key::Price,
            Some("name") => Key::Name,
            Some(_) => return Err(refused()),
        };
        let descending = match words.next() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(refused()),
        };
        if words.next().is_some() {
            return Err(refused());
        }
        Ok(Self { key, descending })
    }
}

/// Products to put on a page: 1 to [`MAX_PAGE`]; 0 stands for 50.
///
/// # Errors
/// Above [`MAX_PAGE`].
pub fn page_size(asked: u32) -> Result<u32, PageError> {
    match asked {
        0 => Ok(DEFAULT_PAGE),
        1..=MAX_PAGE => Ok(asked),
        _ => Err(PageError::Size(asked)),
    }
}

/// The last product of a page; the next page begins after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// Of a list by creation.
    Created(i64),
    /// Of a list by price: amount, then creation.
    Price(i64, i64),
    /// Of a list by name: name, then creation.
    Name(String, i64),
}

impl Cursor {
    /// The place of `product` in a list.
    #[must_use]
    pub fn after(product: &Product, key: Key) -> Self {
        match key {
            Key::Created => Self::Created(product.sequence),
            Key::Price => Self::Price(product.draft.price.amount.minor(), product.sequence),
            Key::Name => Self::Name(product.draft.name.to_string(), product.sequence),
        }
    }

    /// The token that stands for it in one list.
    #[must_use]
    pub fn token(&self, filter: Option<&Filter>, order: Order) -> String {
        let (amount, name, sequence) = match self {
            Self::Created(sequence) => (None, None, *sequence),
            Self::Price(amount, sequence) => (Some(*amount), None, *sequence),
            Self::Name(name, sequence) => (None, Some(name.clone()), *sequence),
        };
        let token = Token { list: list(filter, order), sequence, amount, name };
        // A struct of numbers and text always serializes.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    /// Reads a token.
    ///
    /// # Errors
    /// When it was not made by [`Cursor::token`], or for another list.
    pub fn read(token: &str, filter: Option<&Filter>, order: Order) -> Result<Self, PageError> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| PageError::Token)?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| PageError::Token)?;
        if token.list != list(filter, order) {
            return Err(PageError::OtherList);
        }
        match (order.key, token.amount, token.name) {
            (Key::Created, None, None) => Ok(Self::Created(token.sequence)),
            (Key::Price, Some(amount), None) => Ok(Self::Price(amount, token.sequence)),
            // NUL is in no name, and PostgreSQL would not even compare it.
            (Key::Name, None, Some(name)) if !name.contains('\0') => {
                Ok(Self::Name(name, token.sequence))
            }
            _ => Err(PageError::Token),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    #[serde(rename = "l")]
    list: u64,
    #[serde(rename = "s")]
    sequence: i64,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    amount: Option<i64>,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// Tells lists apart. It guards against mistakes, not against forgery: a token
/// shows nothing that its holder may not list anyway.
fn list(filter: Option<&Filter>, order: Order) -> u64 {
    let text = format!("{order:?} {}", filter.map(Filter::to_string).unwrap_or_default());
    // FNV-1a: the same in every build, as v1 may read what v2 wrote.
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_only_for_its_own_list() {
        let by_name: Order = "name desc".parse().unwrap();
        let filter: Filter = "tag:new".parse().unwrap();
        let cursor = Cursor::Name("Ä".into(), 3);
        let token = cursor.token(Some(&filter), by_name);
        assert_eq!(Cursor::read(&token, Some(&filter), by_name), Ok(cursor));
        assert_eq!(Cursor::read(&token, None, by_name), Err(PageError::OtherList));
        let by_price: Order = "price".parse().unwrap();
        assert_eq!(Cursor::read(&token, Some(&filter), by_price), Err(PageError::OtherList));
        for bad in ["x", "e30", "!!", "bnVsbA"] {
            assert_eq!(Cursor::read(bad, None, by_name), Err(PageError::Token), "{bad}");
        }
    }

    #[test]
    fn orders() {
        for good in ["", "created", "price", "name", "price desc", " name  asc "] {
            assert!(good.parse::<Order>().is_ok(), "{good}");
        }
        for bad in ["desc", "rating", "price down", "price desc name"] {
            assert!(bad.parse::<Order>().is_err(), "{bad}");
        }
    }
}
