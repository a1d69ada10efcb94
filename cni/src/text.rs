//! Ports and addresses as people write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

#[cfg(feature = "schema")]
use schema::PortText;

/// A port or a range of ports, both ends included: `3306`, `9000-9010`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "schema", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "schema", serde(try_from = "PortText", into = "String"))]
pub struct PortRange {
    /// The first port, above 0.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let range = match text.split_once('-') {
            Some((first, last)) => port(first).zip(port(last)),
            None => port(text).map(|port| (port, port)),
        };
        match range {
            Some((first, last)) if first <= last => Ok(Self { first, last }),
            Some(_) => Err(format!("{text:?} ends before it begins")),
            None => {
                Err(format!("{text:?} is no port from 1 to 65535 and no range such as 9000-9010"))
            }
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last > self.first { write!(f, "-{}", self.last) } else { Ok(()) }
    }
}

/// A block of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "schema", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "schema", serde(try_from = "String", into = "String"))]
pub struct Cidr {
    /// Its first address.
    pub address: IpAddr,
    /// Bits that its addresses share: 0 to 32, of IPv6 to 128.
    pub length: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no block of addresses such as 10.0.0.0/8");
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().ok().filter(|l| *l <= bits).ok_or_else(wrong)?,
            None => bits,
        };
        let first = first_address(address, length);
        if first == address {
            Ok(Self { address, length })
        } else {
            Err(format!("{text:?} has bits beyond its length; write {first}/{length}"))
        }
    }
}

fn first_address(address: IpAddr, length: u8) -> IpAddr {
    let mask = |bits: u32| u128::MAX.checked_shl(bits - u32::from(length)).unwrap_or(0);
    match address {
        // The mask's lower half.
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & (mask(32) as u32)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & mask(128)).into()),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Reads parts between commas, blanks around them aside.
///
/// # Errors
/// What each wrong part should have been.
pub fn list<T: FromStr<Err = String>>(text: &str) -> Result<Vec<T>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let mut wrong = Vec::new();
    let read = parts.filter_map(|part| part.parse().map_err(|why| wrong.push(why)).ok()).collect();
    if wrong.is_empty() { Ok(read) } else { Err(wrong.join("; ")) }
}

/// The same parts, with commas between them.
pub fn joined<T: fmt::Display>(parts: &[T]) -> String {
    let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
    parts.join(",")
}

/// As configuration has them.
#[cfg(feature = "schema")]
mod schema {
    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
    use serde::Deserialize;

    use super::{Cidr, PortRange};

    /// As YAML has it: a number, or text.
    #[derive(Deserialize)]
    #[serde(untagged)]
    pub enum PortText {
        Number(u64),
        Text(String),
    }

    impl TryFrom<PortText> for PortRange {
        type Error = String;

        fn try_from(port: PortText) -> Result<Self, String> {
            match port {
                PortText::Number(number) => number.to_string().parse(),
                PortText::Text(text) => text.parse(),
            }
        }
    }

    impl From<PortRange> for String {
        fn from(range: PortRange) -> Self {
            range.to_string()
        }
    }

    impl TryFrom<String> for Cidr {
        type Error = String;

        fn try_from(text: String) -> Result<Self, String> {
            text.parse()
        }
    }

    impl From<Cidr> for String {
        fn from(cidr: Cidr) -> Self {
            cidr.to_string()
        }
    }

    impl JsonSchema for PortRange {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "PortRange".into()
        }

        fn inline_schema() -> bool {
            true
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": ["integer", "string"], "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$"})
        }
    }

    impl JsonSchema for Cidr {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "Cidr".into()
        }

        fn inline_schema() -> bool {
            true
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$"})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        let ports = list::<PortRange>(" 3306, 9000-9010,").unwrap();
        assert_eq!(joined(&ports), "3306,9000-9010");
        let all = list::<PortRange>("0,http,9-8,70000").unwrap_err();
        for part in ["\"0\"", "\"http\"", "\"9-8\" ends before", "\"70000\""] {
            assert!(all.contains(part), "{part}: {all}");
        }
    }

    #[test]
    fn blocks_of_addresses() {
        for (text, same) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), same);
        }
        assert!("10.1.2.3/8".parse::<Cidr>().unwrap_err().ends_with("write 10.0.0.0/8"));
        for text in ["10.0.0.0/33", "", "/8", "host/8", "::/129"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
