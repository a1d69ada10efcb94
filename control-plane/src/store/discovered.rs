//! What another catalogue knows (Consul), put beside what was asked for.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use weir_mesh::model::{
    Addresses, Instance, Protocol, Service, ServiceName, Split, VersionName, Weight,
};

use super::{Desired, Held};

/// The services of another catalogue.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Discovered {
    /// By name.
    pub services: BTreeMap<ServiceName, Found>,
}

/// One service of another catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What its instances say they speak.
    pub protocol: Protocol,
    /// By id, healthy and not.
    pub instances: Vec<Instance>,
    /// Versions that are not among the instances, but that routes name.
    pub missed: BTreeSet<VersionName>,
}

impl Found {
    /// Versions and how many instances of each may be sent to, in the order of
    /// their names, where `v10` comes after `v9`.
    fn versions(&self) -> Vec<(VersionName, usize)> {
        let mut counts: BTreeMap<&VersionName, usize> =
            self.missed.iter().map(|version| (version, 0)).collect();
        for instance in &self.instances {
            *counts.entry(&instance.version).or_default() += usize::from(instance.healthy);
        }
        let mut versions: Vec<_> = counts.into_iter().map(|(v, n)| (v.clone(), n)).collect();
        versions.sort_by(|(a, _), (b, _)| natural(a.as_str(), b.as_str()));
        versions
    }

    /// A split by how many healthy instances there are; by all versions alike when
    /// there are none.
    fn split(&self) -> Option<Split> {
        let versions = self.versions();
        let none = versions.iter().all(|(_, count)| *count == 0);
        let weight = |count: usize| {
            let count = if none { 1 } else { i32::try_from(count).unwrap_or(i32::MAX) };
            Weight::try_from(count).unwrap_or_default()
        };
        let weights = versions.into_iter().map(|(version, count)| (version, weight(count)));
        Split::new(weights.collect(), None).ok()
    }
}

/// Orders by runs of digits as numbers, and everything else as text.
fn natural(a: &str, b: &str) -> Ordering {
    fn chunk(text: &str) -> (&str, &str) {
        let digits = text.starts_with(|c: char| c.is_ascii_digit());
        let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
        text.split_at(end)
    }
    let (mut left, mut right) = (a, b);
    while !left.is_empty() && !right.is_empty() {
        let ((x, rest_of_left), (y, rest_of_right)) = (chunk(left), chunk(right));
        let (x_digits, y_digits) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
        let numbers = x.starts_with(|c: char| c.is_ascii_digit())
            && y.starts_with(|c: char| c.is_ascii_digit());
        let order = match numbers {
            true => x_digits.len().cmp(&y_digits.len()).then_with(|| x_digits.cmp(y_digits)),
            false => x.cmp(y),
        };
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (rest_of_left, rest_of_right);
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// A service as the mesh sees it. What was asked for stands; a version that was
/// only found gets no weight until someone gives it one.
pub(super) fn merge(
    name: &ServiceName,
    asked: Option<&Held<Service>>,
    found: Option<&Found>,
) -> Option<Held<Service>> {
    let Some(found) = found else { return asked.cloned() };
    let Some(asked) = asked else {
        let service = Service {
            name: name.clone(),
            protocol: found.protocol,
            split: found.split()?,
            addresses: Addresses::new(),
            virtual_addresses: Vec::new(),
            audiences: Vec::new(),
            mirror: None,
            managed_by: None,
            descriptor_set: Bytes::new(),
        };
        return Some(Held { value: Arc::new(service), revision: 0 });
    };
    let old = &asked.value.split;
    let new = found.versions().into_iter().filter(|(v, _)| old.weight(v.as_str()).is_none());
    let new: Vec<_> = new.map(|(version, _)| (version, Weight::default())).collect();
    if new.is_empty() {
        return Some(asked.clone());
    }
    let versions = old.versions().iter().cloned().chain(new).collect();
    // More versions of weight 0 break no rule of a split that was good.
    let split = Split::new(versions, old.sticky.clone()).ok()?;
    let value = Arc::new(Service { split, ..(*asked.value).clone() });
    Some(Held { value, revision: asked.revision })
}

/// A service or version that something names.
struct Named<'a> {
    service: &'a ServiceName,
    version: Option<&'a VersionName>,
    protocol: Protocol,
}

/// What routes send to.
fn named(desired: &Desired) -> impl Iterator<Item = Named<'_>> {
    let requests = desired.routes.values().flat_map(|held| {
        let targets = held.value.rules.iter().flat_map(|rule| rule.targets());
        targets.map(|(_, service, version)| Named { service, version, protocol: Protocol::Http1 })
    });
    let connections = desired.tcp_routes.values().flat_map(|held| {
        held.value.backends.iter().map(|backend| Named {
            service: &backend.service,
            version: backend.version.as_ref(),
            protocol: Protocol::Tcp,
        })
    });
    requests.chain(connections)
}

impl Desired {
    /// What another catalogue has, as it was last taken in.
    #[must_use]
    pub fn found(&self) -> Discovered {
        (*self.found).clone()
    }

    /// Takes in what another catalogue has now, in place of what it had.
    ///
    /// A catalogue outside of the mesh must not be able to stop it: what a route
    /// names and is gone there stays as a service or version without an instance.
    pub fn discover(&mut self, mut found: Discovered) {
        self.put_found(found.clone());
        let mut missing = Vec::new();
        for Named { service, version, protocol } in named(self) {
            let held = self.services.get(service);
            let there = held.is_some_and(|held| {
                version.is_none_or(|v| held.value.split.weight(v.as_str()).is_some())
            });
            if !there {
                let protocol = held.map_or(protocol, |held| held.value.protocol);
                missing.push((service.clone(), version.cloned(), protocol));
            }
        }
        if missing.is_empty() {
            return;
        }
        for (service, version, protocol) in missing {
            let entry = found.services.entry(service).or_insert_with(|| Found {
                protocol,
                instances: Vec::new(),
                missed: BTreeSet::new(),
            });
            entry.missed.extend(version.or_else(|| "default".parse().ok()));
        }
        self.put_found(found);
    }

    fn put_found(&mut self, found: Discovered) {
        let old = std::mem::replace(&mut self.found, Arc::new(found));
        let new = self.found.clone();
        for name in old.services.keys().chain(new.services.keys()) {
            self.see(name);
        }
    }

    /// Works out one service anew.
    pub(super) fn see(&mut self, name: &ServiceName) {
        match merge(name, self.asked.get(name), self.found.services.get(name)) {
            Some(held) => drop(self.services.insert(name.clone(), held)),
            None => drop(self.services.remove(name)),
        }
    }

    /// Nothing asked for; what was found is there still.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let mut empty = Self::default();
        empty.put_found((*self.found).clone());
        empty
    }

    /// Where a service is known from: `mesh` when it was asked for, `consul` when it
    /// was found there.
    #[must_use]
    pub fn sources(&self, name: &ServiceName) -> Vec<&'static str> {
        let found = self.found.services.get(name);
        let mesh = self.asked.contains_key(name).then_some("mesh");
        let consul = found.is_some_and(|found| !found.instances.is_empty()).then_some("consul");
        mesh.into_iter().chain(consul).collect()
    }

    /// Whether a service would be there if nobody asked for it.
    #[must_use]
    pub fn is_found(&self, name: &ServiceName) -> bool {
        self.found.services.contains_key(name)
    }

    /// Every instance: those that routers registered, those whose addresses services
    /// name, and those that were found. A process that is known twice counts once.
    #[must_use]
    pub fn with_instances(&self, registered: Vec<Instance>) -> Vec<Instance> {
        let mut all = registered;
        all.extend(self.plain_instances());
        let place = |i: &Instance| (i.service.clone(), canonical(i.address));
        let mut known: HashSet<_> = all.iter().map(place).collect();
        let found = self.found.services.values().flat_map(|found| &found.instances);
        all.extend(found.filter(|instance| known.insert(place(instance))).cloned());
        all
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
