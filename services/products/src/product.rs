//! What a product is. A value of these types is always within its limits.

use std::fmt;

use uuid::Uuid;

/// Largest price in minor units (10^12).
pub const MAX_AMOUNT: i64 = 1_000_000_000_000;
/// Most tags that one product may have.
pub const MAX_TAGS: usize = 20;

/// Why a value cannot be a field of a product. The text goes on after the
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
    /// Space around a name, which nobody would see.
    #[error("begins or ends with white space; leave it out")]
    Untrimmed,
    /// Not three capital letters.
    #[error("{0:?} is not a currency code of ISO 4217: use three capital letters, such as EUR")]
    Currency(String),
    /// Out of range.
    #[error("{0} is not within 0 and {MAX_AMOUNT} minor units")]
    Amount(i64),
    /// More tags than fit.
    #[error("has {0} items; at most {MAX_TAGS} are allowed")]
    TooMany(usize),
    /// The same tag again.
    #[error("repeats {0:?}")]
    Repeated(String),
    /// Not a UUID.
    #[error("{0:?} is not a product id: it is the UUID in `productId` of a product")]
    Id(String),
    /// Not 1 to 5.
    #[error("{0} is not within 1 and 5")]
    Stars(u32),
}

fn length(text: &str, most: usize) -> Result<(), FieldError> {
    let got = text.chars().count();
    if got > most { Err(FieldError::Long { got, most }) } else { Ok(()) }
}

fn only(text: &str, allowed: &'static str, is: impl Fn(char) -> bool) -> Result<(), FieldError> {
    match text.chars().enumerate().find(|(_, c)| !is(*c)) {
        Some((i, character)) => Err(FieldError::Character { character, at: i + 1, allowed }),
        None => Ok(()),
    }
}

fn slug(text: &str, most: usize) -> Result<(), FieldError> {
    if text.is_empty() {
        return Err(FieldError::Required);
    }
    length(text, most)?;
    only(text, "a-z 0-9 -", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
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
    /// What people call it: 1 to 200 characters, no control characters.
    Name, |text| {
        if text.is_empty() {
            return Err(FieldError::Required);
        }
        if text.trim() != text {
            return Err(FieldError::Untrimmed);
        }
        length(text, 200)?;
        only(text, "no control characters", |c| !c.is_control())
    }
}
text! {
    /// Free text, 0 to 4,000 characters; no NUL.
    Description, |text| {
        length(text, 4000)?;
        only(text, "no NUL", |c| c != '\0')
    }
}
text! {
    /// Stock-keeping unit: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    Sku, |text| {
        if text.is_empty() {
            return Err(FieldError::Required);
        }
        length(text, 64)?;
        only(text, "A-Z a-z 0-9 . _ -", |c| c.is_ascii_alphanumeric() || ".-_".contains(c))
    }
}
text! {
    /// The kind of product: 1 to 64 of `a-z 0-9 -`.
    Category, |text| slug(text, 64)
}
text! {
    /// One label: 1 to 32 of `a-z 0-9 -`.
    Tag, |text| slug(text, 32)
}
text! {
    /// Three capital letters, as in ISO 4217.
    Currency, |text| {
        let is = text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase());
        if is { Ok(()) } else { Err(FieldError::Currency(text.chars().take(20).collect())) }
    }
}

/// An amount in a currency's minor unit, such as cents: 0 to [`MAX_AMOUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount(i64);

impl Amount {
    /// As a number.
    #[must_use]
    pub fn minor(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Amount {
    type Error = FieldError;

    fn try_from(minor: i64) -> Result<Self, FieldError> {
        if (0..=MAX_AMOUNT).contains(&minor) {
            Ok(Self(minor))
        } else {
            Err(FieldError::Amount(minor))
        }
    }
}

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// In which currency.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
}

/// At most [`MAX_TAGS`] tags, no two the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tags(Vec<Tag>);

impl Tags {
    /// The tags in the order given.
    #[must_use]
    pub fn as_slice(&self) -> &[Tag] {
        &self.0
    }
}

impl TryFrom<Vec<Tag>> for Tags {
    type Error = FieldError;

    fn try_from(tags: Vec<Tag>) -> Result<Self, FieldError> {
        if tags.len() > MAX_TAGS {
            return Err(FieldError::TooMany(tags.len()));
        }
        for (i, tag) in tags.iter().enumerate() {
            if tags[..i].contains(tag) {
                return Err(FieldError::Repeated(tag.to_string()));
            }
        }
        Ok(Self(tags))
    }
}

/// A product's id: a UUID (RFC 9562), version 7 for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProductId(Uuid);

impl ProductId {
    /// One that was never used.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl TryFrom<&str> for ProductId {
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

impl fmt::Display for ProductId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// One user's rating: 1 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stars(u8);

impl Stars {
    /// As a number, 1 to 5.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u32> for Stars {
    type Error = FieldError;

    fn try_from(stars: u32) -> Result<Self, FieldError> {
        match u8::try_from(stars) {
            Ok(n @ 1..=5) => Ok(Self(n)),
            _ => Err(FieldError::Stars(stars)),
        }
    }
}

/// Which state of a product is meant. It grows with each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision(pub i64);

impl Revision {
    /// Reads an etag. One that this service never gave out is no revision, and
    /// so can be no product's newest.
    #[must_use]
    pub fn from_etag(etag: &str) -> Option<Self> {
        let digits = etag.strip_prefix('r')?;
        let revision = Self(digits.parse().ok()?);
        (revision.etag() == etag).then_some(revision)
    }

    /// As clients see it.
    #[must_use]
    pub fn etag(self) -> String {
        format!("r{}", self.0)
    }
}

/// What a new product is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What people call it.
    pub name: Name,
    /// Free text.
    pub description: Description,
    /// Unique.
    pub sku: Sku,
    /// What it costs.
    pub price: Price,
    /// The kind of product.
    pub category: Category,
    /// Labels.
    pub tags: Tags,
}

/// What an update changes; `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    /// What people call it.
    pub name: Option<Name>,
    /// Free text.
    pub description: Option<Description>,
    /// What it costs.
    pub price: Option<Price>,
    /// The kind of product.
    pub category: Option<Category>,
    /// Labels, replaced as a whole.
    pub tags: Option<Tags>,
}

/// What users think of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rating {
    /// Of all stars given.
    pub sum: i64,
    /// Users who have rated; not 0.
    pub count: u32,
}

impl Rating {
    /// 1.0 to 5.0.
    #[must_use]
    pub fn average(self) -> f64 {
        // Both are far below 2^53.
        self.sum as f64 / f64::from(self.count)
    }
}

/// A product of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its id.
    pub id: ProductId,
    /// Its place in the order of creation.
    pub sequence: i64,
    /// What the creator and later updates gave.
    pub draft: Draft,
    /// Its newest state.
    pub revision: Revision,
    /// Microseconds since 1970 (UTC).
    pub create_time: i64,
    /// Microseconds since 1970 (UTC).
    pub update_time: i64,
    /// Subject of the creator's access token.
    pub created_by: String,
    /// Absent when nobody has rated it.
    pub rating: Option<Rating>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_their_limits_are_refused() {
        assert!(Name::try_from(" x".to_owned()).is_err());
        assert!(Name::try_from("é".repeat(200)).is_ok());
        assert!(Name::try_from("é".repeat(201)).is_err());
        assert!(Sku::try_from("A b".to_owned()).is_err());
        assert!(Category::try_from("Books".to_owned()).is_err());
        for bad in ["", "eur", "EURO", "E1R"] {
            assert!(Currency::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert!(Amount::try_from(-1).is_err() && Amount::try_from(MAX_AMOUNT + 1).is_err());
        assert!(Amount::try_from(0).is_ok() && Amount::try_from(MAX_AMOUNT).is_ok());
        let tag = || Tag::try_from("a".to_owned()).unwrap();
        assert_eq!(Tags::try_from(vec![tag(), tag()]), Err(FieldError::Repeated("a".into())));
        assert!(Stars::try_from(0).is_err() && Stars::try_from(6).is_err());
    }

    #[test]
    fn an_etag_is_read_only_as_it_was_written() {
        assert_eq!(Revision::from_etag(&Revision(7).etag()), Some(Revision(7)));
        for bad in ["", "7", "r07", "r+7", "r", "W/\"7\""] {
            assert_eq!(Revision::from_etag(bad), None, "{bad}");
        }
    }
}
