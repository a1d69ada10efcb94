//! Listeners of gateways, by port.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use weir_mesh::identity::outside_server_config;
use weir_mesh::model::{HostPattern, Invalid, Listener, ListenerProtocol};

use super::Matcher;

/// What gateways listen on besides what they were told at their start.
#[derive(Default)]
pub struct Listeners(BTreeMap<u16, Port>);

/// The listeners of one port.
pub struct Port {
    /// What it takes: the same for all of them.
    pub protocol: ListenerProtocol,
    entries: Vec<Entry>,
    /// HTTPS.
    pub tls: Option<Arc<ServerConfig>>,
}

struct Entry {
    id: Arc<str>,
    hostname: Option<HostPattern>,
    matcher: Matcher,
}

impl Listeners {
    /// What is there at a port.
    #[must_use]
    pub fn at(&self, port: u16) -> Option<&Port> {
        self.0.get(&port)
    }

    /// The ports to listen on.
    pub fn ports(&self) -> impl Iterator<Item = (u16, ListenerProtocol)> {
        self.0.iter().map(|(port, held)| (*port, held.protocol))
    }

    /// Compiles the listeners of a snapshot; `matcher` gives the rules of the routes
    /// that name one.
    ///
    /// # Errors
    /// Certificates that cannot be used, and ports that two protocols claim.
    pub(super) fn build(
        listeners: &[Listener],
        mut matcher: impl FnMut(&str) -> Matcher,
    ) -> Result<Self, Invalid> {
        let mut ports: BTreeMap<u16, (Port, Keys)> = BTreeMap::new();
        for (i, listener) in listeners.iter().enumerate() {
            let at = format!("listeners[{i}]");
            let new = || {
                let port = Port { protocol: listener.protocol, entries: Vec::new(), tls: None };
                (port, Vec::new())
            };
            let (port, keys) = ports.entry(listener.port).or_insert_with(new);
            if port.protocol != listener.protocol {
                let why = format!("port {} has another protocol already", listener.port);
                return Err(Invalid::one(format!("{at}.protocol"), why));
            }
            for (j, certificate) in listener.certificates.iter().enumerate() {
                let key = weir_mesh::identity::certified_key(&certificate.chain, &certificate.key)
                    .map_err(|error| {
                        Invalid::one(format!("{at}.certificates[{j}]"), error.to_string())
                    })?;
                keys.push((listener.hostname.clone(), key));
            }
            port.entries.push(Entry {
                id: listener.id.clone(),
                hostname: listener.hostname.clone(),
                matcher: matcher(&listener.id),
            });
        }
        let finished = ports.into_iter().map(|(number, (mut port, keys))| {
            if port.protocol == ListenerProtocol::Https {
                let resolver = Arc::new(ByName(keys));
                let config = outside_server_config(resolver);
                port.tls =
                    Some(config.map_err(|error| Invalid::one("listeners", error.to_string()))?);
            }
            Ok((number, port))
        });
        finished.collect::<Result<_, Invalid>>().map(Self)
    }
}

impl Port {
    fn entry(&self, host: &str) -> Option<&Entry> {
        most_exact(self.entries.iter().map(|entry| (entry.hostname.as_ref(), entry)), host)
    }

    /// The rules for a host (lower-case): those of the listener that names it most
    /// exactly, and of no other.
    #[must_use]
    pub fn matcher(&self, host: &str) -> Option<&Matcher> {
        self.entry(host).map(|entry| &entry.matcher)
    }

    /// The listener that a server name means; without one, that for every name.
    #[must_use]
    pub fn id(&self, name: Option<&str>) -> Option<&Arc<str>> {
        self.entry(name.unwrap_or_default()).map(|entry| &entry.id)
    }
}

/// An exact name, else the longest wildcard, else what takes every host.
fn most_exact<'a, T>(
    all: impl Iterator<Item = (Option<&'a HostPattern>, T)>,
    host: &str,
) -> Option<T> {
    let rank = |pattern: Option<&HostPattern>| match pattern {
        None => 0,
        Some(HostPattern::Suffix(suffix)) => suffix.len(),
        Some(HostPattern::Exact(_)) => usize::MAX,
    };
    let fitting = all.filter(|(pattern, _)| pattern.is_none_or(|pattern| pattern.matches(host)));
    let mut best: Option<(usize, T)> = None;
    for (pattern, value) in fitting {
        let rank = rank(pattern);
        // Of two alike the first.
        if best.as_ref().is_none_or(|(other, _)| rank > *other) {
            best = Some((rank, value));
        }
    }
    best.map(|(_, value)| value)
}

/// Certificates, and the names that they are for.
type Keys = Vec<(Option<HostPattern>, Arc<CertifiedKey>)>;

/// Certificates by server name.
struct ByName(Keys);

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByName({})", self.0.len())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        // One listener may have several keys, of several kinds.
        let schemes = hello.signature_schemes();
        let fitting = |key: &Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let usable = self.0.iter().filter(|(_, key)| fitting(key));
        most_exact(usable.map(|(pattern, key)| (pattern.as_ref(), key)), &name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(id: &str, hostname: &str, protocol: ListenerProtocol) -> Listener {
        Listener {
            id: id.into(),
            port: 8080,
            protocol,
            hostname: HostPattern::parse(hostname).ok(),
            certificates: Vec::new(),
        }
    }

    #[test]
    fn the_most_exact_listener_takes_a_host() {
        let all = [
            listener("any", "", ListenerProtocol::Http),
            listener("wild", "*.example.com", ListenerProtocol::Http),
            listener("deep", "*.a.example.com", ListenerProtocol::Http),
            listener("exact", "b.example.com", ListenerProtocol::Http),
        ];
        let built = Listeners::build(&all, |_| Matcher::default()).unwrap();
        let port = built.at(8080).unwrap();
        let id = |host: &str| port.id(Some(host)).map(ToString::to_string).unwrap();
        assert_eq!(id("x.a.example.com"), "deep");
        assert_eq!(id("x.example.com"), "wild");
        assert_eq!(id("b.example.com"), "exact");
        assert_eq!(id("example.com"), "any");
        assert_eq!(port.id(None).map(ToString::to_string).unwrap(), "any");
        assert!(built.at(80).is_none());
    }

    #[test]
    fn a_port_has_one_protocol() {
        let all = [
            listener("a", "", ListenerProtocol::Http),
            listener("b", "b.example.com", ListenerProtocol::Tcp),
        ];
        let refused = Listeners::build(&all, |_| Matcher::default()).err().unwrap();
        assert!(refused.to_string().contains("listeners[1].protocol"), "{refused}");
    }
}
