//! Amounts of resources.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An amount of a resource as Kubernetes writes it: `100m`, `64Mi`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "AmountText", into = "String")]
pub struct Quantity {
    text: String,
    thousandths: u128,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AmountText {
    Whole(u64),
    Number(f64),
    Text(String),
}

impl TryFrom<AmountText> for Quantity {
    type Error = String;

    fn try_from(amount: AmountText) -> Result<Self, String> {
        match amount {
            AmountText::Whole(number) => number.to_string().parse(),
            AmountText::Number(number) => number.to_string().parse(),
            AmountText::Text(text) => text.parse(),
        }
    }
}

impl Quantity {
    /// In thousandths of its unit, rounded down.
    #[must_use]
    pub fn thousandths(&self) -> u128 {
        self.thousandths
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no amount such as 100m, 0.5, 64Mi or 1G");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let thousandths_per_unit: u128 = match unit {
            "m" => 1,
            "" => 1_000,
            "k" => 1_000_000,
            "M" => 1_000_000_000,
            "G" => 1_000_000_000_000,
            "T" => 1_000_000_000_000_000,
            "Ki" => 1_000 << 10,
            "Mi" => 1_000 << 20,
            "Gi" => 1_000 << 30,
            "Ti" => 1_000 << 40,
            _ => return Err(wrong()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        // Longer ones mean nothing that exists.
        if whole.is_empty() || part.is_empty() || whole.len() > 15 || part.len() > 9 {
            return Err(wrong());
        }
        let whole: u128 = whole.parse().map_err(|_| wrong())?;
        let scale = 10_u128.pow(u32::try_from(part.len()).map_err(|_| wrong())?);
        let part: u128 = part.parse().map_err(|_| wrong())?;
        let thousandths = whole * thousandths_per_unit + part * thousandths_per_unit / scale;
        Ok(Self { text: text.to_owned(), thousandths })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.text
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let pattern = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$";
        schemars::json_schema!({"type": ["number", "string"], "pattern": pattern})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_compare() {
        let amount = |text: &str| text.parse::<Quantity>().unwrap().thousandths();
        assert_eq!(amount("100m"), 100);
        assert_eq!(amount("0.5"), 500);
        assert_eq!(amount("1Ki"), 1_024_000);
        assert!(amount("1G") < amount("1Gi"));
        for text in ["", "m", "1 Mi", "-1", "1e3", "1.", "64MB"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
