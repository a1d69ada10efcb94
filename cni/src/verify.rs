//! Proof that connections are redirected, without any right to look at the rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::redirection::Redirection;
use crate::text::Cidr;

/// Where no one is (RFC 5737): only redirection makes a connection of these.
const NOBODY: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(203, 0, 113, 1)];

/// What to do about it.
const ADVICE: &str = "is the CNI plugin of Weir on this node? Delete the pod once it is, or \
                      annotate it with weir.dev/redirect: init";

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes a connection that only redirection can bring to the router's port, which
/// must be free yet.
///
/// # Errors
/// It does not come: what to do.
pub fn verify(redirection: &Redirection) -> Result<(), String> {
    let port = redirection.outbound_port;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}"))?;
    let Some(target) = target(redirection) else {
        eprintln!("not verified: every address that could show it is skipped");
        return Ok(());
    };
    let near = TcpStream::connect_timeout(&target, PATIENCE).map_err(|error| {
        format!("connections are not redirected to the router ({target}: {error}): {ADVICE}")
    })?;
    if arrived(&listener, &near).unwrap_or(false) {
        return Ok(());
    }
    Err(format!("{target} answers by itself, so connections are not redirected: {ADVICE}"))
}

/// Whether the listener gets the connection that was made.
fn arrived(listener: &TcpListener, near: &TcpStream) -> std::io::Result<bool> {
    set_socket_timeout(listener, Timeout::Recv, Some(PATIENCE))?;
    let (_, from) = listener.accept()?;
    Ok(from == near.local_addr()?)
}

/// An address and port that are not skipped.
fn target(redirection: &Redirection) -> Option<SocketAddr> {
    let skipped = |address: &Ipv4Addr| {
        redirection.skip_outbound_cidrs.iter().any(|cidr| holds(*cidr, (*address).into()))
    };
    let address = NOBODY.into_iter().find(|address| !skipped(address))?;
    let ranges = &redirection.skip_outbound_ports;
    let port = (1..=u16::MAX).find(|p| !ranges.iter().any(|r| (r.first..=r.last).contains(p)))?;
    Some((address, port).into())
}

fn holds(cidr: Cidr, address: IpAddr) -> bool {
    let first = |a: IpAddr| match a {
        IpAddr::V4(v4) => Ipv6Addr::from_bits(u128::from(v4.to_bits()) << 96).to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(cidr.length)).unwrap_or(0);
    cidr.address.is_ipv4() == address.is_ipv4() && first(address) & mask == first(cidr.address)
}
