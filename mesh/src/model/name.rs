//! Names of services and versions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("is empty; a name has 1 to 63 lower-case letters, digits or '-'")]
    Empty,
    /// RFC 1123 allows 63.
    #[error("has {0} characters; a name has at most 63")]
    Long(usize),
    /// Not a letter, digit or hyphen, or a hyphen at an end.
    #[error(
        "{0:?} is not a DNS label (RFC 1123): use lower-case letters, digits and '-', \
         beginning and ending with a letter or digit"
    )]
    Shape(String),
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > 63 {
        return Err(NameError::Long(text.len()));
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !text.bytes().all(inner) || text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Shape(text.chars().take(80).collect()));
    }
    Ok(())
}

/// `label`, `label.namespace`, each also with `:port`.
fn check_service(text: &str) -> Result<(), NameError> {
    let shape = || NameError::Shape(text.chars().take(80).collect());
    let name = match text.split_once(':') {
        None => text,
        Some((name, port)) => {
            let number = port.parse::<u16>().map_err(|_| shape())?;
            if number == 0 || number.to_string() != port {
                return Err(shape());
            }
            name
        }
    };
    match name.split_once('.') {
        None => check(name),
        Some((label, namespace)) => check(label).and_then(|()| check(namespace)),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name! {
    /// A service: a DNS label (RFC 1123 §2.1); on Kubernetes `NAME.NAMESPACE`, and
    /// for all but the first port of a Service with `:PORT`. Cheap to clone.
    ServiceName, check_service
}
name! {
    /// A version of a service: a DNS label (RFC 1123 §2.1). Cheap to clone.
    VersionName, check
}

impl VersionName {
    /// `default`: what runs without saying which version it is.
    #[must_use]
    pub fn unsaid() -> Self {
        Self("default".into())
    }
}

impl ServiceName {
    /// What stands where a service is wanted and none can be meant.
    pub(crate) fn nowhere() -> Self {
        Self("nowhere".into())
    }

    /// The first label: `products` of `products.shop:9090`.
    #[must_use]
    pub fn label(&self) -> &str {
        let base = self.base();
        base.split_once('.').map_or(base, |(label, _)| label)
    }

    /// `shop` of `products.shop:9090`; none on one machine.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.base().split_once('.').map(|(_, namespace)| namespace)
    }

    /// The name without its port: `products.shop` of `products.shop:9090`.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(base, _)| base)
    }

    /// `9090` of `products.shop:9090`.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.0.split_once(':').and_then(|(_, port)| port.parse().ok())
    }

    /// Whether it is one label alone, as names on one machine are.
    #[must_use]
    pub fn is_label(&self) -> bool {
        self.base() == self.as_str() && self.namespace().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_only() {
        assert!(ServiceName::try_from("products").is_ok());
        assert!(ServiceName::try_from("a-1").is_ok());
        for bad in ["", "-a", "a-", "A", "a_b", "ä", &"a".repeat(64)] {
            assert!(ServiceName::try_from(bad).is_err(), "{bad}");
            assert!(VersionName::try_from(bad).is_err(), "{bad}");
        }
        assert!(VersionName::try_from("a.b").is_err());
        assert_eq!(VersionName::unsaid(), VersionName::try_from("default").unwrap());
    }

    #[test]
    fn a_service_may_have_a_namespace_and_a_port() {
        let name = ServiceName::try_from("products.shop:9090").unwrap();
        let parts = (name.label(), name.namespace(), name.base(), name.port());
        assert_eq!(parts, ("products", Some("shop"), "products.shop", Some(9090)));
        assert!(!name.is_label() && ServiceName::try_from("a").unwrap().is_label());
        for bad in ["a.b.c", "a.", ".a", "a:", "a:0", "a:080", "a:65536", "a.b:+1", "a:1:2"] {
            assert!(ServiceName::try_from(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_itself(text in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?") {
            prop_assert_eq!(ServiceName::try_from(text.as_str()).unwrap().to_string(), text);
        }
    }
}
