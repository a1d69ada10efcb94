//! What a router in a pod of Kubernetes is told beside the rest.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use clap::ValueEnum;

/// Where a router runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlatformArg {
    /// On a machine: it stands before one application on one port, and registers it.
    Local,
    /// In a pod: the kernel redirects all that comes and goes, and who is where comes
    /// from the Kubernetes API.
    Kubernetes,
}

/// A listener elsewhere: `IP:PORT`, or a name, which is looked up at each connection;
/// several, separated by commas, where any of them will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote(Vec<Place>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: Arc<str>,
    port: u16,
}

impl Remote {
    /// Where it is now; never empty. Places come in an order of chance, so that many
    /// who ask spread over them.
    ///
    /// # Errors
    /// When no name leads anywhere.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let mut places: Vec<_> = self.0.iter().collect();
        fastrand::shuffle(&mut places);
        let mut found = Vec::new();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for Place { host, port } in places {
            match tokio::net::lookup_host((&**host, *port)).await {
                Ok(more) => found.extend(more),
                Err(error) => last = error,
            }
        }
        if found.is_empty() { Err(last) } else { Ok(found) }
    }
}

impl FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not HOST:PORT, such as 127.0.0.1:7100 or control-plane:15010");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let good = host.parse::<IpAddr>().is_ok() || host.bytes().all(name);
        if host.is_empty() || port == 0 || !good {
            return Err(wrong());
        }
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, place) in self.0.iter().enumerate() {
            write!(f, "{}{place}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Ports, separated by commas; may be none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parts(text).map(port).collect::<Result<_, _>>().map(Self)
    }
}

/// HTTP probes of the pod, `PORT/PATH` separated by commas; may be none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes(Vec<(u16, Box<str>)>);

impl Probes {
    /// Whether a GET of this path is one.
    #[must_use]
    pub fn has(&self, port: u16, path: &str) -> bool {
        self.0.iter().any(|(p, known)| *p == port && **known == *path)
    }
}

impl FromStr for Probes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let probe = |part: &str| {
            let (port, path) = part
                .split_once('/')
                .ok_or_else(|| format!("{part:?} is not PORT/PATH, such as 8080/healthz"))?;
            let path = path.split_once('?').map_or(path, |(path, _)| path);
            Ok((self::port(port)?, format!("/{path}").into()))
        };
        parts(text).map(probe).collect::<Result<_, String>>().map(Self)
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{text:?} is no port; use 1 to 65535"))
}

/// A pod that a router runs in.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    /// Its address; a gateway may do without.
    pub ip: Option<IpAddr>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Ports whose plaintext nobody looks at, whatever their services say.
    pub opaque_ports: Ports,
    /// What comes without an identity, and is asked nothing.
    pub probes: Probes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_plane_is_an_address_or_a_name() {
        for good in ["127.0.0.1:1", "[::1]:7100", "weir-control-plane.weir-system.svc:15010"] {
            assert_eq!(good.parse::<Remote>().unwrap().to_string(), good);
        }
        for bad in ["", "a", ":1", "a:", "a:0", "a:70000", "a b:1", "http://a:1"] {
            assert!(bad.parse::<Remote>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_may_be_empty_and_say_what_is_wrong() {
        assert_eq!("".parse::<Ports>().unwrap(), Ports::default());
        assert_eq!("3306, 6379,".parse::<Ports>().unwrap(), Ports(vec![3306, 6379]));
        assert!("0".parse::<Ports>().unwrap_err().contains("1 to 65535"));
        let probes: Probes = "8080/healthz?deep=1,9090/".parse().unwrap();
        assert!(probes.has(8080, "/healthz") && probes.has(9090, "/"));
        assert!(!probes.has(8080, "/") && !probes.has(9090, "/healthz"));
        assert!("8080".parse::<Probes>().unwrap_err().contains("8080/healthz"));
    }
}
