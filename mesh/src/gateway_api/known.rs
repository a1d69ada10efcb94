//! The services that a route may name.

use std::collections::BTreeMap;

use crate::model::{Service, ServiceName, VersionName};

/// Longest list of names that an error shows.
const SHOWN: usize = 20;

/// Services with their versions.
#[derive(Debug, Clone, Default)]
pub struct KnownServices(BTreeMap<ServiceName, Vec<VersionName>>);

impl FromIterator<(ServiceName, Vec<VersionName>)> for KnownServices {
    fn from_iter<I: IntoIterator<Item = (ServiceName, Vec<VersionName>)>>(services: I) -> Self {
        Self(services.into_iter().collect())
    }
}

impl<'a> FromIterator<&'a Service> for KnownServices {
    fn from_iter<I: IntoIterator<Item = &'a Service>>(services: I) -> Self {
        services
            .into_iter()
            .map(|service| {
                let versions = service.split.versions().iter().map(|(name, _)| name.clone());
                (service.name.clone(), versions.collect())
            })
            .collect()
    }
}

impl KnownServices {
    /// What a backendRef's `name` means: a service, or one version of it as
    /// `service-version`.
    ///
    /// A service of exactly that name wins; then the longest service name that
    /// fits, so that the answer does not depend on any order.
    ///
    /// # Errors
    /// That there is none, and which there are.
    pub fn resolve(&self, name: &str) -> Result<(ServiceName, Option<VersionName>), String> {
        if let Some((service, _)) = self.0.get_key_value(name) {
            return Ok((service.clone(), None));
        }
        let mut without_version = None;
        for (at, _) in name.rmatch_indices('-') {
            let Some((service, versions)) = self.0.get_key_value(&name[..at]) else { continue };
            let wanted = &name[at + 1..];
            if let Some(version) = versions.iter().find(|version| version.as_str() == wanted) {
                return Ok((service.clone(), Some(version.clone())));
            }
            without_version.get_or_insert((service, versions, wanted));
        }
        match without_version {
            Some((service, versions, wanted)) if !versions.is_empty() => {
                let names = list(versions.iter().map(VersionName::as_str));
                Err(format!("service {service} has no version {wanted:?}; there are: {names}"))
            }
            _ => Err(self.dangling(name)),
        }
    }

    /// A service by its name alone.
    ///
    /// # Errors
    /// That there is none, and which there are.
    pub fn service(&self, name: &str) -> Result<ServiceName, String> {
        match self.0.get_key_value(name) {
            Some((service, _)) => Ok(service.clone()),
            None => Err(format!("no service {name:?}; there are: {}", self.names())),
        }
    }

    fn names(&self) -> String {
        list(self.0.keys().map(ServiceName::as_str))
    }

    fn dangling(&self, name: &str) -> String {
        if self.0.is_empty() {
            return format!("no service {name:?}; there are none");
        }
        // The example is made of what was most likely meant.
        let likeness = |service: &str| strsim::damerau_levenshtein(service, name);
        let example = self
            .0
            .iter()
            .filter_map(|(service, versions)| Some((service, versions.first()?)))
            .min_by_key(|(service, _)| likeness(service.as_str()))
            .map(|(service, version)| format!(" (a version is named as {service}-{version})"));
        let example = example.unwrap_or_default();
        format!("no service {name:?}; there are: {}{example}", self.names())
    }
}

fn list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let mut out = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        out.push_str(&format!(" and {more} more"));
    }
    if out.is_empty() {
        out.push_str("none");
    }
    out
}
