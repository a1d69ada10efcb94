//! What may leave the mesh: by name, which the router looks up itself. The
//! address that an application had in mind proves nothing about the name that it
//! sends.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::time::timeout;
use weir_mesh::model::Egress;

use super::upstream::Refused;
use crate::upstream::{Dial, Pool};
use crate::worker::Worker;

/// What a name led to is remembered for this long; the system does not tell DNS's
/// own time.
const KEEP: Duration = Duration::from_secs(30);
/// That it led nowhere, for this long.
const KEEP_FAILURE: Duration = Duration::from_secs(1);
/// Names, and hosts with connections, that a worker remembers.
const MOST: usize = 256;
const LOOKUP: Duration = Duration::from_secs(5);

/// A host that may not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    host: String,
    port: u16,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    NoPolicy,
    NotListed,
    Inner,
}

impl Denied {
    /// There is no policy, so nothing leaves.
    #[must_use]
    pub fn without_policy(host: String, port: u16) -> Self {
        Self { host, port, why: Why::NoPolicy }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, why } = self;
        match why {
            Why::NoPolicy => write!(
                f,
                "egress: {host:?}, port {port}, is not in the mesh, and nothing may leave it; list \
                 the host in egress.hosts"
            ),
            Why::NotListed => write!(
                f,
                "egress: the mesh's policy does not allow {host:?}, port {port}; list it in \
                 egress.hosts"
            ),
            Why::Inner => write!(
                f,
                "egress: {host:?}, port {port}, leads to a loopback, link-local or metadata \
                 address; such an address must be listed itself in egress.hosts"
            ),
        }
    }
}

/// Names that were looked up, and connections to what they led to. Each worker
/// has its own.
#[derive(Default)]
pub struct Outside {
    names: RefCell<HashMap<Box<str>, Known>>,
    pools: RefCell<HashMap<SocketAddr, Rc<Pool>>>,
}

struct Known {
    until: Instant,
    found: Result<Vec<IpAddr>, String>,
}

impl Outside {
    /// Connections to a host, HTTP/1.1.
    #[must_use]
    pub fn pool(&self, address: SocketAddr) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        if pools.len() >= MOST && !pools.contains_key(&address) {
            // Those in use live on with their requests.
            pools.clear();
        }
        let new = || Rc::new(Pool::new(address, Dial::Http1));
        pools.entry(address).or_insert_with(new).clone()
    }

    /// Closes connections that wait for a request.
    pub fn close_spare(&self) {
        self.pools.borrow_mut().clear();
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Some(known) = self.names.borrow().get(host)
            && Instant::now() < known.until
        {
            return known.found.clone();
        }
        let found = match timeout(LOOKUP, lookup_host((host, 0))).await {
            Ok(Ok(addresses)) => {
                let mut ips: Vec<IpAddr> = Vec::new();
                for ip in addresses.map(|a| a.ip()) {
                    if !ips.contains(&ip) {
                        ips.push(ip);
                    }
                }
                Ok(ips)
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {LOOKUP:?}")),
        };
        let keep = if found.is_ok() { KEEP } else { KEEP_FAILURE };
        let now = Instant::now();
        let mut names = self.names.borrow_mut();
        if names.len() >= MOST {
            names.retain(|_, known| now < known.until);
        }
        if names.len() >= MOST {
            names.clear();
        }
        names.insert(host.into(), Known { until: now + keep, found: found.clone() });
        found
    }
}

/// Where a host that may be reached is. Never empty.
///
/// # Errors
/// [`Refused::Egress`] or [`Refused::Lookup`].
pub async fn find(
    worker: &Worker,
    egress: &Egress,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, Refused> {
    let found = look(worker, egress, host, port).await;
    let verdict = match &found {
        Ok(_) => "allowed",
        Err(Refused::Egress(_)) => "denied",
        Err(_) => "not_found",
    };
    count(worker, verdict);
    found
}

/// Counts what the policy said.
pub fn count(worker: &Worker, verdict: &'static str) {
    let help = "Requests and connections to hosts outside the mesh, by what the policy said.";
    let registry = worker.shared.metrics.registry();
    registry.counter("weir.router.egress", help, "", &[("verdict", verdict)]).inc();
}

async fn look(
    worker: &Worker,
    egress: &Egress,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, Refused> {
    let denied = |why| Refused::Egress(Denied { host: host.to_owned(), port, why });
    if let Ok(ip) = host.parse::<IpAddr>() {
        if egress.allows_ip(ip, port, false) {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let why = if egress.allow_by_default { Why::Inner } else { Why::NotListed };
        return Err(denied(why));
    }
    if !egress.allows_name(host, port) {
        return Err(denied(Why::NotListed));
    }
    let lookup = |why| Refused::Lookup(host.to_owned(), why);
    let ips = worker.outside.resolve(host).await.map_err(lookup)?;
    if ips.is_empty() {
        return Err(lookup("no address".to_owned()));
    }
    let allowed = ips.into_iter().filter(|ip| egress.allows_ip(*ip, port, true));
    let allowed: Vec<_> = allowed.map(|ip| SocketAddr::new(ip, port)).collect();
    if allowed.is_empty() { Err(denied(Why::Inner)) } else { Ok(allowed) }
}
