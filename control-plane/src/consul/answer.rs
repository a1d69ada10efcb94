//! From what Consul answers to instances of the mesh.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Deserialize;
use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{Instance, Protocol, ServiceName, Transport, VersionName};

/// Meta of what this or another mesh registered: its registry knows better.
pub const MANAGED: &str = "weir-managed";
/// Meta: the port of the router's inbound listener.
pub const ROUTER_PORT: &str = "weir-router-port";
/// Meta: the SPIFFE id that the router shows.
pub const IDENTITY: &str = "weir-identity";
/// Instances of one service that are taken in.
pub const MAX_INSTANCES: usize = 1000;
/// Longest id of an instance.
const MAX_ID: usize = 253;

type Meta = Option<BTreeMap<String, String>>;

/// One entry of `/v1/health/service/NAME`, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    node: Node,
    service: Registered,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Node {
    node: String,
    address: String,
    meta: Meta,
    locality: Option<Locality>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Registered {
    #[serde(rename = "ID")]
    id: String,
    kind: String,
    tags: Option<Vec<String>>,
    address: String,
    port: i64,
    meta: Meta,
    locality: Option<Locality>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Locality {
    zone: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    status: String,
}

/// An instance, and what it says that it speaks.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Healthy: none of its checks is critical or in maintenance.
    pub instance: Instance,
    /// None: it does not say.
    pub protocol: Option<Protocol>,
}

/// How entries are read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Which instances are taken in; none: all.
    pub tag: Option<String>,
    /// The mesh's own.
    pub trust_domain: Arc<str>,
}

impl Reading {
    /// Whether a service with these tags, of all of its instances, is taken in.
    #[must_use]
    pub fn wants(&self, tags: &[String]) -> bool {
        let Some(wanted) = &self.tag else { return true };
        tags.iter().any(|tag| {
            tag == wanted || tag.strip_prefix(&**wanted).is_some_and(|rest| rest.starts_with('.'))
        })
    }

    /// The instances among entries, by id; and what cannot be one, and why.
    #[must_use]
    pub fn read(&self, service: &ServiceName, entries: &[Entry]) -> (Vec<Seen>, Vec<String>) {
        let mut seen = BTreeMap::new();
        let mut skipped = Vec::new();
        for entry in entries.iter().filter(|entry| self.is_ours(entry)) {
            if seen.len() == MAX_INSTANCES {
                skipped.push(format!("{service}: more than {MAX_INSTANCES} instances"));
                break;
            }
            match self.one(service, entry) {
                Ok(one) => drop(seen.insert(one.instance.id.clone(), one)),
                Err(why) => {
                    let Entry { node, service: registered, .. } = entry;
                    let id = short(&registered.id);
                    skipped.push(format!("{service}: {id} on {}: {why}", short(&node.node)));
                }
            }
        }
        (seen.into_values().collect(), skipped)
    }

    /// Not a proxy of Consul's own mesh, not registered by a Weir, and tagged.
    fn is_ours(&self, entry: &Entry) -> bool {
        let registered = &entry.service;
        registered.kind.is_empty()
            && meta(&registered.meta, MANAGED).is_none()
            && self.wants(registered.tags.as_deref().unwrap_or_default())
    }

    fn one(&self, service: &ServiceName, entry: &Entry) -> Result<Seen, String> {
        let Entry { node, service: registered, checks } = entry;
        let host = match registered.address.as_str() {
            "" => &node.address,
            own => own,
        };
        let ip: IpAddr = host
            .parse()
            .map_err(|_| format!("{:?} is no IP address; register it by one", short(host)))?;
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(format!("{ip} cannot be connected to"));
        }
        let router = meta(&registered.meta, ROUTER_PORT);
        let identity = meta(&registered.meta, IDENTITY);
        let port = match router {
            Some(text) => text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| {
                format!("meta {ROUTER_PORT} {:?} is no port (1 to 65535)", short(text))
            })?,
            None => u16::try_from(registered.port)
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("port {} is none (1 to 65535)", registered.port))?,
        };
        if let Some(identity) = identity {
            self.check_identity(service, identity)?;
        }
        let mesh = router.is_some() || identity.is_some();
        let mut id = format!("consul:{}/{}", visible(&node.node), visible(&registered.id));
        id.truncate(MAX_ID);
        let tags = registered.tags.as_deref().unwrap_or_default();
        let critical = checks.iter().any(|c| !matches!(c.status.as_str(), "passing" | "warning"));
        let instance = Instance {
            id: id.into(),
            service: service.clone(),
            version: self.version(registered, tags).ok_or("has no version")?,
            address: SocketAddr::new(ip, port),
            transport: if mesh { Transport::Mesh } else { Transport::Plain },
            zone: zone(node, registered).into(),
            healthy: !critical,
            identity: None,
        };
        Ok(Seen { instance, protocol: self.protocol(registered, tags) })
    }

    /// Routers expect the service's own id: another one would fail each connection.
    fn check_identity(&self, service: &ServiceName, identity: &str) -> Result<(), String> {
        let expected = SpiffeId::of_service(&self.trust_domain, service.as_str())
            .map_err(|error| error.to_string())?;
        match identity == expected.as_str() {
            true => Ok(()),
            false => Err(format!("meta {IDENTITY} {:?} is not {expected}", short(identity))),
        }
    }

    /// The value of a tag `NAME=VALUE` or `PREFIX.NAME=VALUE`.
    fn tagged<'a>(&self, tags: &'a [String], name: &str) -> Option<&'a str> {
        let prefix = self.tag.as_deref().unwrap_or("weir");
        tags.iter().find_map(|tag| {
            let own = tag.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
            own.unwrap_or(tag).strip_prefix(name)?.strip_prefix('=')
        })
    }

    fn version(&self, registered: &Registered, tags: &[String]) -> Option<VersionName> {
        let like_v1 = |tag: &&String| {
            tag.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let text = meta(&registered.meta, "version")
            .or_else(|| self.tagged(tags, "version"))
            .or_else(|| tags.iter().find(like_v1).map(String::as_str));
        text.and_then(label).or_else(|| "default".parse().ok())
    }

    fn protocol(&self, registered: &Registered, tags: &[String]) -> Option<Protocol> {
        let told = meta(&registered.meta, "protocol").or_else(|| self.tagged(tags, "protocol"));
        match told {
            Some(told) => protocol(told),
            None => tags.iter().find_map(|tag| protocol(tag)),
        }
    }
}

fn meta<'a>(of: &'a Meta, name: &str) -> Option<&'a str> {
    of.as_ref()?.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

fn zone(node: &Node, registered: &Registered) -> String {
    let locality = |locality: &Option<Locality>| locality.as_ref().map(|l| l.zone.clone());
    let zone = meta(&node.meta, "zone").map(str::to_owned);
    let zone = zone.or_else(|| locality(&registered.locality)).or_else(|| locality(&node.locality));
    visible(&zone.unwrap_or_default())
}

fn protocol(text: &str) -> Option<Protocol> {
    Some(match text {
        "http" | "http1" => Protocol::Http1,
        "http2" | "h2c" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "tcp" => Protocol::Tcp,
        _ => return None,
    })
}

/// A DNS label of a text: in lower case, `-` for what is not allowed.
fn label(text: &str) -> Option<VersionName> {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).chars().collect();
    let text: String = text.chars().map(allowed).take(63).collect();
    text.trim_end_matches('-').parse().ok()
}

/// What may stand in an id: visible ASCII.
fn visible(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_graphic() { c } else { '-' };
    text.chars().take(MAX_ID / 2).map(allowed).collect()
}

/// What an error shows of a text that someone else wrote.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn reading(tag: Option<&str>) -> Reading {
        Reading { tag: tag.map(str::to_owned), trust_domain: "weir.local".into() }
    }

    fn read(tag: Option<&str>, service: Value) -> Result<Seen, String> {
        with(tag, json!({"Node": "n1", "Address": "10.0.0.1"}), service, &["passing"])
    }

    fn with(
        tag: Option<&str>,
        node: Value,
        service: Value,
        checks: &[&str],
    ) -> Result<Seen, String> {
        let checks: Vec<_> = checks.iter().map(|status| json!({"Status": status})).collect();
        let entry = json!({"Node": node, "Service": service, "Checks": checks});
        let entry: Entry = serde_json::from_value(entry).unwrap();
        let (mut seen, mut skipped) = reading(tag).read(&"web".parse().unwrap(), &[entry]);
        match (seen.pop(), skipped.pop()) {
            (Some(seen), None) => Ok(seen),
            (None, Some(why)) => Err(why),
            (None, None) => Err("not ours".to_owned()),
            (Some(_), Some(why)) => panic!("both: {why}"),
        }
    }

    #[test]
    fn the_services_address_else_the_nodes() {
        let seen =
            read(None, json!({"ID": "a b", "Port": 80, "Tags": null, "Meta": null})).unwrap();
        assert_eq!(seen.instance.address.to_string(), "10.0.0.1:80");
        assert_eq!((&*seen.instance.id, seen.protocol), ("consul:n1/a-b", None));
        assert_eq!(seen.instance.version.as_str(), "default");
        assert_eq!(seen.instance.transport, Transport::Plain);
        let seen = read(None, json!({"ID": "a", "Address": "fd00::7", "Port": 80})).unwrap();
        assert_eq!(seen.instance.address.to_string(), "[fd00::7]:80");
    }

    #[test]
    fn what_cannot_be_reached_is_named() {
        for (service, word) in [
            (json!({"ID": "a", "Port": 0}), "port 0"),
            (json!({"ID": "a", "Port": 70000}), "port 70000"),
            (json!({"ID": "a", "Port": 80, "Address": "db.internal"}), "no IP address"),
            (json!({"ID": "a", "Port": 80, "Address": "0.0.0.0"}), "cannot be connected to"),
            (json!({"ID": "a", "Port": 80, "Meta": {ROUTER_PORT: "x"}}), "is no port"),
            (
                json!({"ID": "a", "Port": 80, "Meta": {IDENTITY: "spiffe://other/ns/a/sa/web"}}),
                "is not spiffe://weir.local/ns/default/sa/web",
            ),
        ] {
            let why = read(None, service).unwrap_err();
            assert!(why.starts_with("web: a on n1: ") && why.contains(word), "{why}");
        }
    }

    #[test]
    fn a_version_is_in_the_meta_or_in_a_tag() {
        let version = |meta: Value, tags: &[&str]| {
            let service = json!({"ID": "a", "Port": 80, "Meta": meta, "Tags": tags});
            let tag = reading(Some("mesh")).tag;
            let mut tags = tags.to_vec();
            tags.push("mesh");
            let mut service = service;
            service["Tags"] = json!(tags);
            read(tag.as_deref(), service).unwrap().instance.version.to_string()
        };
        assert_eq!(version(json!({"version": "v3"}), &["version=v1"]), "v3");
        assert_eq!(version(json!({}), &["primary", "version=v1", "v2"]), "v1");
        assert_eq!(version(json!({}), &["mesh.version=1.2.3_RC"]), "1-2-3-rc");
        assert_eq!(version(json!({}), &["vip", "v2"]), "v2");
        assert_eq!(version(json!({"version": "-.-"}), &["vip"]), "default");
    }

    #[test]
    fn a_protocol_is_too() {
        let protocol = |meta: Value, tags: &[&str]| {
            let service = json!({"ID": "a", "Port": 80, "Meta": meta, "Tags": tags});
            read(None, service).unwrap().protocol
        };
        assert_eq!(protocol(json!({"protocol": "grpc"}), &["http"]), Some(Protocol::Grpc));
        assert_eq!(protocol(json!({}), &["weir.protocol=h2c"]), Some(Protocol::Http2));
        assert_eq!(protocol(json!({}), &["primary", "tcp"]), Some(Protocol::Tcp));
        assert_eq!(protocol(json!({}), &["primary"]), None);
    }

    #[test]
    fn only_what_is_tagged_is_ours() {
        let service = |tag: &str| json!({"ID": "a", "Port": 80, "Tags": [tag]});
        for (tag, ours) in
            [("weir", true), ("weir.version=v1", true), ("weird", false), ("primary", false)]
        {
            assert_eq!(read(Some("weir"), service(tag)).is_ok(), ours, "{tag}");
            assert!(read(None, service(tag)).is_ok());
        }
        let proxy = json!({"ID": "a", "Port": 80, "Kind": "connect-proxy", "Tags": ["weir"]});
        assert_eq!(read(Some("weir"), proxy).unwrap_err(), "not ours");
        let managed = json!({"ID": "a", "Port": 80, "Meta": {MANAGED: "weir.local"}});
        assert_eq!(read(None, managed).unwrap_err(), "not ours");
    }

    #[test]
    fn a_router_is_reached_by_its_port_and_mtls() {
        let meta = json!({ROUTER_PORT: "15008", IDENTITY: "spiffe://weir.local/ns/default/sa/web"});
        let seen = read(None, json!({"ID": "a", "Port": 80, "Meta": meta})).unwrap();
        assert_eq!(seen.instance.address.to_string(), "10.0.0.1:15008");
        assert_eq!(seen.instance.transport, Transport::Mesh);
    }

    #[test]
    fn warnings_are_healthy_and_zones_are_the_nodes() {
        let service = || json!({"ID": "a", "Port": 80});
        let node = json!({"Node": "n1", "Address": "10.0.0.1", "Meta": {"zone": "eu-1"}});
        let healthy = |checks: &[&str]| {
            let seen = with(None, node.clone(), service(), checks).unwrap();
            assert_eq!(&*seen.instance.zone, "eu-1");
            seen.instance.healthy
        };
        assert!(healthy(&[]) && healthy(&["passing", "warning"]));
        assert!(!healthy(&["passing", "critical"]) && !healthy(&["maintenance"]));
    }
}
