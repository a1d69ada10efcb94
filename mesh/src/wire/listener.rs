//! Listeners of gateways.

use weir_proto::weir::mesh::v1 as pb;

use super::decode::join;
use crate::model::{
    HostPattern, Invalid, Listener, ListenerProtocol, ServerCertificate, Violations,
};

/// Reads a listener.
///
/// # Errors
/// All fields that are wrong.
pub(super) fn listener(message: &pb::Listener, at: &str) -> Result<Listener, Invalid> {
    let mut bad = Violations::new();
    if message.id.is_empty() {
        bad.add(join(at, "id"), "is empty");
    }
    let port = u16::try_from(message.port).ok().filter(|port| *port > 0);
    if port.is_none() {
        bad.add(join(at, "port"), format_args!("{} is not from 1 to 65535", message.port));
    }
    let protocol = match message.protocol() {
        pb::listener::Protocol::Http => Some(ListenerProtocol::Http),
        pb::listener::Protocol::Https => Some(ListenerProtocol::Https),
        pb::listener::Protocol::Tls => Some(ListenerProtocol::Tls),
        pb::listener::Protocol::Tcp => Some(ListenerProtocol::Tcp),
        pb::listener::Protocol::Unspecified => {
            bad.add(join(at, "protocol"), "is missing; use HTTP, HTTPS, TLS or TCP");
            None
        }
    };
    let hostname = match message.hostname.as_str() {
        "" => None,
        text => bad.take(&join(at, "hostname"), HostPattern::parse(text)),
    };
    if protocol == Some(ListenerProtocol::Https) && message.certificates.is_empty() {
        bad.add(join(at, "certificates"), "is empty; HTTPS needs at least one");
    }
    let mut certificates = Vec::with_capacity(message.certificates.len());
    for (i, sent) in message.certificates.iter().enumerate() {
        if sent.chain.is_empty() || sent.key.is_empty() {
            bad.add(join(at, &format!("certificates[{i}]")), "needs a chain and a key");
        }
        certificates.push(ServerCertificate {
            chain: sent.chain.iter().map(|der| der.clone().into()).collect(),
            key: sent.key.clone().into(),
        });
    }
    let id = message.id.as_str().into();
    bad.finish(port.zip(protocol).map(|(port, protocol)| Listener {
        id,
        port,
        protocol,
        hostname,
        certificates,
    }))
}

impl From<&Listener> for pb::Listener {
    fn from(listener: &Listener) -> Self {
        let protocol = match listener.protocol {
            ListenerProtocol::Http => pb::listener::Protocol::Http,
            ListenerProtocol::Https => pb::listener::Protocol::Https,
            ListenerProtocol::Tls => pb::listener::Protocol::Tls,
            ListenerProtocol::Tcp => pb::listener::Protocol::Tcp,
        };
        let certificate = |certificate: &ServerCertificate| pb::Certificate {
            chain: certificate.chain.iter().map(|der| der.to_vec()).collect(),
            key: certificate.key.to_vec(),
        };
        Self {
            id: listener.id.to_string(),
            port: listener.port.into(),
            protocol: protocol.into(),
            hostname: listener.hostname.as_ref().map(ToString::to_string).unwrap_or_default(),
            certificates: listener.certificates.iter().map(certificate).collect(),
        }
    }
}
