//! What may leave the mesh, and the limits of opaque connections.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::HostPattern;

/// Why a text names nothing outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a host name, nor `*.example.com`, nor an IP address")]
pub struct EgressTargetError(String);

/// A host outside the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressTarget {
    /// By name.
    Name(HostPattern),
    /// By address, which also allows what is refused by default: loopback,
    /// link-local and metadata addresses.
    Ip(IpAddr),
}

impl EgressTarget {
    /// Parses `api.example.com`, `*.example.com`, `192.0.2.7` or `2001:db8::7`.
    ///
    /// # Errors
    /// [`EgressTargetError`].
    pub fn parse(text: &str) -> Result<Self, EgressTargetError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip.to_canonical()));
        }
        let pattern = HostPattern::parse(text);
        pattern.map(Self::Name).map_err(|_| EgressTargetError(text.chars().take(260).collect()))
    }
}

impl fmt::Display for EgressTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(pattern) => pattern.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// One host that may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressHost {
    /// Which.
    pub target: EgressTarget,
    /// None below 1; empty: every port.
    pub ports: Vec<u16>,
}

impl EgressHost {
    fn allows_port(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }
}

/// What may leave the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Egress {
    /// What happens to a host that is not listed.
    pub allow_by_default: bool,
    /// What is listed is allowed; with `allow_by_default` it matters for
    /// addresses alone.
    pub hosts: Vec<EgressHost>,
}

impl Egress {
    /// Whether a name is listed with this port. `host` is lower-case.
    #[must_use]
    pub fn lists_name(&self, host: &str, port: u16) -> bool {
        self.hosts.iter().any(|entry| match &entry.target {
            EgressTarget::Name(pattern) => pattern.matches(host) && entry.allows_port(port),
            EgressTarget::Ip(_) => false,
        })
    }

    /// Whether an address is listed with this port.
    #[must_use]
    pub fn lists_ip(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        self.hosts.iter().any(|entry| match &entry.target {
            EgressTarget::Ip(listed) => *listed == ip && entry.allows_port(port),
            EgressTarget::Name(_) => false,
        })
    }

    /// Whether a name may be looked up and connected to. A name without a dot
    /// would be a service's: it must be listed.
    #[must_use]
    pub fn allows_name(&self, host: &str, port: u16) -> bool {
        self.lists_name(host, port) || (self.allow_by_default && host.contains('.'))
    }

    /// Whether an address may be connected to: one that was asked for, or that an
    /// allowed name led to (`named`). Loopback, link-local and metadata addresses
    /// only when they are listed themselves: a name that leads there is an attack
    /// on the router's own machine (server-side request forgery).
    #[must_use]
    pub fn allows_ip(&self, ip: IpAddr, port: u16, named: bool) -> bool {
        let ip = ip.to_canonical();
        self.lists_ip(ip, port) || ((named || self.allow_by_default) && !is_inner(ip))
    }
}

/// Addresses of the machine itself, of its links, and where clouds serve
/// credentials to whoever asks.
fn is_inner(ip: IpAddr) -> bool {
    // Alibaba Cloud's and Azure's; those of others are link-local.
    const METADATA: [[u8; 4]; 2] = [[100, 100, 100, 200], [168, 63, 129, 16]];
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.octets()[0] == 0
                || ip.is_multicast()
                || ip.is_broadcast()
                || METADATA.contains(&ip.octets())
        }
        IpAddr::V6(ip) => {
            // Amazon's metadata on IPv6.
            const METADATA: [u16; 8] = [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.segments() == METADATA
        }
    }
}

/// Limits of opaque connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpOptions {
    /// Without a byte either way.
    pub idle_timeout: Duration,
    /// For the first bytes, which tell what a connection speaks.
    pub detection_timeout: Duration,
    /// Open at once, for each worker of a router; at least 1.
    pub max_connections: u32,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(3600),
            detection_timeout: Duration::from_millis(100),
            max_connections: 10_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(allow_by_default: bool, hosts: &[(&str, &[u16])]) -> Egress {
        let entry = |(host, ports): &(&str, &[u16])| EgressHost {
            target: EgressTarget::parse(host).unwrap(),
            ports: ports.to_vec(),
        };
        Egress { allow_by_default, hosts: hosts.iter().map(entry).collect() }
    }

    #[test]
    fn names_and_ports_are_what_counts() {
        let egress = egress(false, &[("api.example.com", &[443]), ("*.example.org", &[])]);
        assert!(egress.allows_name("api.example.com", 443));
        assert!(!egress.allows_name("api.example.com", 80));
        assert!(!egress.allows_name("x.api.example.com", 443));
        assert!(egress.allows_name("a.b.example.org", 1));
        assert!(!egress.allows_name("example.org", 1));
        assert!(!egress.allows_name("notexample.org", 1));
    }

    #[test]
    fn a_name_without_a_dot_is_a_services_unless_it_is_listed() {
        let open = egress(true, &[("localhost", &[9])]);
        assert!(open.allows_name("any.example.com", 80));
        assert!(!open.allows_name("prodcts", 80));
        assert!(open.allows_name("localhost", 9));
    }

    #[test]
    fn inner_addresses_must_be_listed_themselves() {
        let open = egress(true, &[("127.0.0.2", &[80]), ("fd00:ec2::254", &[])]);
        let allows = |ip: &str, port| open.allows_ip(ip.parse().unwrap(), port, true);
        for inner in ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "::"] {
            assert!(!allows(inner, 80), "{inner}");
        }
        for inner in ["::ffff:127.0.0.1", "::ffff:169.254.169.254", "100.100.100.200", "ff02::1"] {
            assert!(!allows(inner, 80), "{inner}");
        }
        assert!(allows("127.0.0.2", 80) && allows("::ffff:127.0.0.2", 80));
        assert!(!allows("127.0.0.2", 81));
        assert!(allows("fd00:ec2::254", 1) && allows("192.0.2.1", 1) && allows("10.0.0.1", 1));
        let closed = egress(false, &[]);
        assert!(!closed.allows_ip("192.0.2.1".parse().unwrap(), 1, false));
        assert!(closed.allows_ip("192.0.2.1".parse().unwrap(), 1, true), "by an allowed name");
    }
}
