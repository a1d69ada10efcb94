//! Where versions of a service run without routers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Instance, ServiceName, Transport, VersionName};

/// Why a text is no address of a process, or cannot be one more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No IP address and port.
    #[error("{0:?} is not `ip:port`, such as 10.0.0.7:8080 or [fd00::7]:8080")]
    Shape(String),
    /// Nothing listens there.
    #[error("{0} has port 0; name the port that the process listens on")]
    Port(SocketAddr),
    /// `0.0.0.0` and `::` are for listening, and a group is not one process.
    #[error("{0} cannot be connected to; name the address that the process is reached by")]
    Nowhere(SocketAddr),
    /// It is there already.
    #[error("{0} is an address of {1} already; a process runs one version, and is named once")]
    Twice(SocketAddr, VersionName),
    /// See [`Addresses::MAX`].
    #[error("{0} has more than {max} addresses", max = Addresses::MAX)]
    Many(VersionName),
}

/// The addresses of a service's versions: none twice, at most [`Addresses::MAX`]
/// of each, all of them somewhere that a process could be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses(BTreeMap<VersionName, Vec<SocketAddr>>);

impl Addresses {
    /// Most addresses of one version.
    pub const MAX: usize = 1000;

    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, after those that the version has.
    ///
    /// # Errors
    /// [`AddressError`]; nothing is added then.
    pub fn add(&mut self, version: &VersionName, text: &str) -> Result<(), AddressError> {
        let address: SocketAddr =
            text.parse().map_err(|_| AddressError::Shape(text.chars().take(80).collect()))?;
        if address.port() == 0 {
            return Err(AddressError::Port(address));
        }
        let ip = address.ip().to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(AddressError::Nowhere(address));
        }
        if let Some(owner) = self.owner(address) {
            return Err(AddressError::Twice(address, owner.clone()));
        }
        if self.of(version).len() >= Self::MAX {
            return Err(AddressError::Many(version.clone()));
        }
        self.0.entry(version.clone()).or_default().push(address);
        Ok(())
    }

    /// Whose it is, however it was written: `[::ffff:10.0.0.7]` is `10.0.0.7`.
    fn owner(&self, address: SocketAddr) -> Option<&VersionName> {
        let place = |a: &SocketAddr| (a.ip().to_canonical(), a.port());
        let there = |list: &Vec<SocketAddr>| list.iter().any(|a| place(a) == place(&address));
        self.0.iter().find(|(_, list)| there(list)).map(|(version, _)| version)
    }

    /// Those of a version, in the order in which they were added.
    #[must_use]
    pub fn of(&self, version: &VersionName) -> &[SocketAddr] {
        self.0.get(version).map_or(&[], Vec::as_slice)
    }

    /// How many there are, of all versions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Each as an instance of `service`. Nobody asks them how they are, so all
    /// are healthy; routers find out for themselves.
    pub fn instances<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> impl Iterator<Item = Instance> + 'a {
        let all = self.0.iter().flat_map(|(v, list)| list.iter().map(move |address| (v, *address)));
        all.map(move |(version, address)| Instance {
            id: format!("{service}-{version}@{address}").into(),
            service: service.clone(),
            version: version.clone(),
            address,
            transport: Transport::Plain,
            zone: Arc::from(""),
            healthy: true,
            identity: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str) -> VersionName {
        name.parse().unwrap()
    }

    #[test]
    fn only_what_a_process_could_be_reached_by() {
        let mut addresses = Addresses::new();
        let mut error = |text| addresses.add(&version("v1"), text).unwrap_err().to_string();
        assert!(error("db:5432").contains("\"db:5432\" is not `ip:port`"));
        assert!(error("10.0.0.7").contains("is not `ip:port`"));
        assert!(error("10.0.0.7:0").contains("port 0"));
        for nowhere in ["0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80", "224.0.0.1:80"] {
            assert!(error(nowhere).contains("cannot be connected to"), "{nowhere}");
        }
        assert_eq!(addresses.count(), 0);
    }

    #[test]
    fn a_process_is_named_once_in_a_service() {
        let mut addresses = Addresses::new();
        addresses.add(&version("v1"), "10.0.0.7:80").unwrap();
        addresses.add(&version("v1"), "10.0.0.7:81").unwrap();
        addresses.add(&version("v2"), "[fd00::7]:80").unwrap();
        for (of, text) in [("v1", "10.0.0.7:80"), ("v2", "[::ffff:10.0.0.7]:80")] {
            let error = addresses.add(&version(of), text).unwrap_err();
            assert!(matches!(error, AddressError::Twice(_, owner) if owner == version("v1")));
        }
        assert_eq!(addresses.of(&version("v1")).len(), 2);
        let ids: Vec<_> = addresses
            .instances(&"web".parse().unwrap())
            .map(|i| {
                assert!(i.healthy && i.transport == Transport::Plain);
                i.id.to_string()
            })
            .collect();
        assert_eq!(ids, ["web-v1@10.0.0.7:80", "web-v1@10.0.0.7:81", "web-v2@[fd00::7]:80"]);
    }

    #[test]
    fn a_version_has_at_most_so_many() {
        let mut addresses = Addresses::new();
        for port in 1..=Addresses::MAX {
            addresses.add(&version("v1"), &format!("10.0.0.7:{port}")).unwrap();
        }
        let error = addresses.add(&version("v1"), "10.0.0.8:80").unwrap_err();
        assert_eq!(error, AddressError::Many(version("v1")));
        addresses.add(&version("v2"), "10.0.0.8:80").unwrap();
    }
}
