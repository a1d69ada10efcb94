//! What is redirected, as a value and as arguments of `weir-cni redirect`.

use crate::text::{Cidr, PortRange, joined, list};

/// Where a router takes connections that its application makes.
pub const OUTBOUND_PORT: u16 = 15_001;
/// Where it takes connections to its application.
pub const INBOUND_PORT: u16 = 15_006;
/// Where it answers probes, which nothing redirects.
pub const ADMIN_PORT: u16 = 15_020;
/// User of the router, whose own connections are not redirected.
pub const ROUTER_UID: u32 = 15_000;

/// What of a pod's TCP connections goes to its router: all but what is named here.
/// Connections by the loopback interface and UDP never do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirection {
    /// Port on loopback for connections out of the pod.
    pub outbound_port: u16,
    /// Port for connections into the pod, not redirected itself.
    pub inbound_port: u16,
    /// Port of the router that is not redirected.
    pub admin_port: u16,
    /// Whose connections out of the pod are not redirected.
    pub router_uid: u32,
    /// Connections out to these ports go as they are.
    pub skip_outbound_ports: Vec<PortRange>,
    /// Connections in at these ports go as they are.
    pub skip_inbound_ports: Vec<PortRange>,
    /// Connections out to these addresses go as they are.
    pub skip_outbound_cidrs: Vec<Cidr>,
    /// IPv6 goes as it is.
    pub skip_ipv6: bool,
}

impl Default for Redirection {
    fn default() -> Self {
        Self {
            outbound_port: OUTBOUND_PORT,
            inbound_port: INBOUND_PORT,
            admin_port: ADMIN_PORT,
            router_uid: ROUTER_UID,
            skip_outbound_ports: Vec::new(),
            skip_inbound_ports: Vec::new(),
            skip_outbound_cidrs: Vec::new(),
            skip_ipv6: false,
        }
    }
}

impl Redirection {
    /// As arguments, which [`Redirection::parse`] reads as the same.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--outbound-port={}", self.outbound_port),
            format!("--inbound-port={}", self.inbound_port),
            format!("--admin-port={}", self.admin_port),
            format!("--router-uid={}", self.router_uid),
        ];
        for (name, parts) in [
            ("skip-outbound-ports", joined(&self.skip_outbound_ports)),
            ("skip-inbound-ports", joined(&self.skip_inbound_ports)),
            ("skip-outbound-cidrs", joined(&self.skip_outbound_cidrs)),
        ] {
            if !parts.is_empty() {
                arguments.push(format!("--{name}={parts}"));
            }
        }
        if self.skip_ipv6 {
            arguments.push("--skip-ipv6".into());
        }
        arguments
    }

    /// Reads arguments: `--name=value` or `--name value`. What is not named keeps its
    /// default.
    ///
    /// # Errors
    /// All that is wrong, each with its name.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut redirection = Self::default();
        let mut wrong = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--skip-ipv6" {
                redirection.skip_ipv6 = true;
                continue;
            }
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, arguments.next()),
            };
            let read = match value {
                Some(value) => redirection.set(&name, &value),
                None => Err("has no value".to_owned()),
            };
            wrong.extend(read.err().map(|why| format!("{name}: {why}")));
        }
        if wrong.is_empty() { Ok(redirection) } else { Err(wrong.join("\n")) }
    }

    /// Whether connections into the pod at this port come to the router.
    #[must_use]
    pub fn receives(&self, port: u16) -> bool {
        let own = [self.inbound_port, self.admin_port];
        let skipped = &self.skip_inbound_ports;
        !own.contains(&port) && !skipped.iter().any(|r| (r.first..=r.last).contains(&port))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "--outbound-port" => self.outbound_port = port(value)?,
            "--inbound-port" => self.inbound_port = port(value)?,
            "--admin-port" => self.admin_port = port(value)?,
            "--router-uid" => {
                let uid = value.parse();
                self.router_uid = uid.map_err(|_| format!("{value:?} is no number of a user"))?;
            }
            "--skip-outbound-ports" => self.skip_outbound_ports = list(value)?,
            "--skip-inbound-ports" => self.skip_inbound_ports = list(value)?,
            "--skip-outbound-cidrs" => self.skip_outbound_cidrs = list(value)?,
            _ => return Err("is no option; `weir-cni --help` lists them".to_owned()),
        }
        Ok(())
    }
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("{text:?} is no port from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_mistake_is_told() {
        let error = Redirection::parse(
            ["--outbound-port=0", "--skip-outbound-cidrs", "x", "--skip", "y", "--router-uid"]
                .map(str::to_owned),
        );
        let error = error.unwrap_err();
        let named: Vec<_> = error.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(named, ["--outbound-port", "--skip-outbound-cidrs", "--skip", "--router-uid"]);
    }

    prop_compose! {
        fn range()(a in 1_u16.., b in 1_u16..) -> PortRange {
            PortRange { first: a.min(b), last: a.max(b) }
        }
    }

    fn cidr() -> impl Strategy<Value = Cidr> {
        prop_oneof![
            (any::<u32>(), 0_u32..=32).prop_map(|(bits, length)| {
                let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
                format!("{}/{length}", Ipv4Addr::from_bits(bits & mask))
            }),
            (any::<u128>(), 0_u32..=128).prop_map(|(bits, length)| {
                let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
                format!("{}/{length}", Ipv6Addr::from_bits(bits & mask))
            }),
        ]
        .prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        #[test]
        fn arguments_say_all_of_it(
            (outbound_port, inbound_port, admin_port) in (1_u16.., 1_u16.., 1_u16..),
            router_uid in any::<u32>(),
            skip_outbound_ports in vec(range(), 0..4),
            skip_inbound_ports in vec(range(), 0..4),
            skip_outbound_cidrs in vec(cidr(), 0..4),
            skip_ipv6 in any::<bool>(),
        ) {
            let redirection = Redirection {
                outbound_port, inbound_port, admin_port, router_uid, skip_outbound_ports,
                skip_inbound_ports, skip_outbound_cidrs, skip_ipv6,
            };
            prop_assert_eq!(Redirection::parse(redirection.arguments()), Ok(redirection));
        }
    }
}
