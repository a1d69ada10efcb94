//! Routes of connections: TCPRoute and TLSRoute of the Gateway API.

use std::sync::Arc;

use super::{BackendRef, HostPattern, ServiceName};

/// Which kind a route was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpRouteKind {
    /// TCPRoute.
    Tcp,
    /// TLSRoute: by server name, passed through.
    Tls,
}

/// Whose connections a route is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpParent {
    /// Connections of the mesh to this service; for TCPRoutes alone.
    Service(ServiceName),
    /// Connections to listeners of the gateway.
    Gateway {
        /// The listener of this name; none: any.
        section: Option<Arc<str>>,
        /// The listener at this port; none: any.
        port: Option<u16>,
    },
}

impl TcpParent {
    /// Whether a listener of the gateway is meant.
    #[must_use]
    pub fn is_listener(&self, name: &str, at: u16) -> bool {
        match self {
            Self::Service(_) => false,
            Self::Gateway { section, port } => {
                section.as_deref().is_none_or(|section| section == name)
                    && port.is_none_or(|port| port == at)
            }
        }
    }
}

/// One route of connections. It has one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRoute {
    /// Unique among TCPRoutes and TLSRoutes; a DNS subdomain name.
    pub name: Arc<str>,
    /// As it was written.
    pub kind: TcpRouteKind,
    /// Never empty.
    pub parents: Vec<TcpParent>,
    /// Server names (RFC 6066 §3): never empty for TLSRoutes, empty for TCPRoutes.
    pub hostnames: Vec<HostPattern>,
    /// The rule's name; may be empty.
    pub rule: Arc<str>,
    /// Never empty, and the weights never sum to 0.
    pub backends: Vec<BackendRef>,
}
