//! Listeners of Gateways: what each takes, and what keeps one from being there.

use std::sync::Arc;

use serde_json::Value;
use weir_mesh::model::{HostPattern, ListenerProtocol, ServerCertificate};

use super::certificate;
use super::grants::{Grants, Referrer};
use super::json::{list, port, selects, text};
use super::status::Fault;
use crate::kubernetes::objects::{Kind, Objects};

/// Group of all kinds of routes.
pub(super) const GROUP: &str = "gateway.networking.k8s.io";

/// One listener as it was asked for.
pub(super) struct Listener<'a> {
    pub name: &'a str,
    pub port: u16,
    pub protocol: Option<ListenerProtocol>,
    /// TLS that would end here and is bytes inside.
    terminates_bytes: bool,
    pub hostname: Option<HostPattern>,
    pub certificates: Vec<ServerCertificate>,
    /// Kinds of routes that it takes.
    pub kinds: Vec<Kind>,
    allowed: &'a Value,
    pub accepted: Result<(), Fault>,
    pub conflict: Option<Fault>,
    pub resolved: Result<(), Fault>,
    /// An older Gateway's listener that is the same, by its id: routers open that one
    /// alone.
    pub same_as: Option<Arc<str>>,
    /// Routes that it has taken.
    pub attached: u32,
}

impl<'a> Listener<'a> {
    pub fn read(sent: &'a Value, namespace: &str, objects: &Objects, grants: &Grants<'_>) -> Self {
        let mut accepted = Ok(());
        let tls = &sent["tls"];
        let passthrough = text(tls, "mode") == "Passthrough";
        let protocol = match text(sent, "protocol") {
            "HTTP" => Some(ListenerProtocol::Http),
            "HTTPS" => Some(ListenerProtocol::Https),
            "TLS" => Some(ListenerProtocol::Tls),
            "TCP" => Some(ListenerProtocol::Tcp),
            other => {
                let why =
                    format!("protocol {other:?} is not supported; use HTTP, HTTPS, TLS or TCP");
                accepted = Err(Fault::new("UnsupportedProtocol", why));
                None
            }
        };
        let terminates_bytes = protocol == Some(ListenerProtocol::Tls) && !passthrough;
        if terminates_bytes {
            let why =
                "tls.mode: Terminate is not supported for protocol TLS; use Passthrough, or HTTPS";
            accepted = Err(Fault::new("UnsupportedValue", why));
        }
        if protocol == Some(ListenerProtocol::Https) && passthrough {
            let why = "tls.mode: Passthrough is for protocol TLS";
            accepted = Err(Fault::new("UnsupportedValue", why));
        }
        let number = port(sent, "port");
        if number.is_none_or(|number| number == weir_cni::ADMIN_PORT) {
            let why = format!(
                "port must be from 1 to 65535, and {} is the routers' own",
                weir_cni::ADMIN_PORT
            );
            accepted = Err(Fault::new("PortUnavailable", why));
        }
        let hostname = match text(sent, "hostname") {
            "" => None,
            text => match HostPattern::parse(text) {
                Ok(hostname) => Some(hostname),
                Err(error) => {
                    accepted = Err(Fault::new("UnsupportedValue", format!("hostname: {error}")));
                    None
                }
            },
        };
        let (kinds, kinds_fault) = kinds(&sent["allowedRoutes"], protocol);
        let mut resolved = kinds_fault.map_or(Ok(()), Err);
        let mut found = Vec::new();
        if protocol == Some(ListenerProtocol::Https) {
            match certificates(tls, namespace, objects, grants) {
                Ok(read) => found = read,
                Err(fault) => resolved = Err(fault),
            }
        }
        Self {
            name: text(sent, "name"),
            port: number.unwrap_or_default(),
            protocol,
            terminates_bytes,
            hostname,
            certificates: found,
            kinds,
            allowed: &sent["allowedRoutes"]["namespaces"],
            accepted,
            conflict: None,
            resolved,
            same_as: None,
            attached: 0,
        }
    }

    /// Whether routers can open it. One that takes only kinds that are not known
    /// takes nothing.
    pub fn is_programmed(&self) -> bool {
        let complete =
            self.protocol != Some(ListenerProtocol::Https) || !self.certificates.is_empty();
        self.accepted.is_ok() && complete && !self.kinds.is_empty()
    }

    /// Whether routes of a namespace may be attached.
    pub fn admits(&self, objects: &Objects, own: &str, namespace: &str) -> bool {
        match text(self.allowed, "from") {
            "All" => true,
            "Selector" => {
                let labels = objects.get(Kind::Namespace, "", namespace);
                let labels = labels.map(|object| &object["metadata"]["labels"]);
                labels.is_some_and(|labels| selects(&self.allowed["selector"], labels))
            }
            "" | "Same" => own == namespace,
            _ => false,
        }
    }

    /// Why it cannot be beside another one of its Gateway, which then cannot be
    /// beside it either.
    pub fn against(&self, other: &Self) -> Option<Fault> {
        if self.port != other.port || self.protocol.is_none() || other.protocol.is_none() {
            return None;
        }
        let of_tls = |l: &Self| l.protocol == Some(ListenerProtocol::Tls);
        let mixed =
            of_tls(self) && of_tls(other) && self.terminates_bytes != other.terminates_bytes;
        if self.protocol != other.protocol || mixed {
            let why = format!(
                "listener {} has port {} with another protocol; use another port",
                other.name, self.port
            );
            return Some(Fault::new("ProtocolConflict", why));
        }
        let bytes = self.protocol == Some(ListenerProtocol::Tcp);
        (bytes || self.hostname == other.hostname).then(|| {
            let host = self.hostname.as_ref().map_or("*".to_owned(), ToString::to_string);
            let why = format!("listener {} has port {} and host {host} too", other.name, self.port);
            Fault::new("HostnameConflict", why)
        })
    }
}

fn kinds(allowed: &Value, protocol: Option<ListenerProtocol>) -> (Vec<Kind>, Option<Fault>) {
    let possible: &[Kind] = match protocol {
        None => &[],
        Some(ListenerProtocol::Http | ListenerProtocol::Https) => {
            &[Kind::HTTPRoute, Kind::GRPCRoute]
        }
        Some(ListenerProtocol::Tls) => &[Kind::TLSRoute],
        Some(ListenerProtocol::Tcp) => &[Kind::TCPRoute],
    };
    let asked = list(allowed, "kinds");
    if asked.is_empty() {
        return (possible.to_vec(), None);
    }
    let mut kinds = Vec::new();
    let mut fault = None;
    for sent in asked {
        let group = sent["group"].as_str().unwrap_or(GROUP);
        let kind = text(sent, "kind");
        match possible.iter().find(|known| group == GROUP && known.as_str() == kind) {
            Some(known) if kinds.contains(known) => {}
            Some(known) => kinds.push(*known),
            None if protocol.is_some() => {
                let why = format!("allowedRoutes.kinds: {kind:?} cannot be attached here");
                fault = Some(Fault::new("InvalidRouteKinds", why));
            }
            None => {}
        }
    }
    (kinds, fault)
}

/// One that cannot be read is enough: a client that asks for it would get another's.
fn certificates(
    tls: &Value,
    namespace: &str,
    objects: &Objects,
    grants: &Grants<'_>,
) -> Result<Vec<ServerCertificate>, Fault> {
    let refs = list(tls, "certificateRefs");
    if refs.is_empty() {
        let why = "tls.certificateRefs is empty; name a Secret of type kubernetes.io/tls";
        return Err(Fault::new("InvalidCertificateRef", why));
    }
    let mut read = Vec::new();
    for (i, sent) in refs.iter().enumerate() {
        let at = format!("tls.certificateRefs[{i}]");
        let invalid = |why: String| Fault::new("InvalidCertificateRef", format!("{at}: {why}"));
        let (group, kind) = (text(sent, "group"), sent["kind"].as_str().unwrap_or("Secret"));
        if !matches!(group, "" | "core") || kind != "Secret" {
            return Err(invalid(format!("{group}/{kind} is not supported; name a Secret")));
        }
        let name = text(sent, "name");
        let of = sent["namespace"].as_str().unwrap_or(namespace);
        let referrer = Referrer { kind: Kind::Gateway, namespace };
        if !grants.allow(referrer, Kind::Secret, of, name) {
            let why =
                format!("{at}: no ReferenceGrant in {of} lets Gateways of {namespace} use it");
            return Err(Fault::new("RefNotPermitted", why));
        }
        let secret = objects.get(Kind::Secret, of, name);
        let secret = secret.ok_or_else(|| invalid(format!("no Secret {name} in {of}")))?;
        let certificate = certificate::read(secret);
        read.push(certificate.map_err(|why| invalid(format!("Secret {name}: {why}")))?);
    }
    Ok(read)
}
