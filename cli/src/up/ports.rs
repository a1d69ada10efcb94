//! Which ports the mesh listens on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::Error;

/// Below the range that Linux gives to outgoing connections, so that a program
/// that is started again finds its port free.
const APP_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Holds a free port for an application until the listener is dropped.
///
/// # Errors
/// There is none.
pub fn reserve() -> Result<(u16, TcpListener), Error> {
    for _ in 0..1_000 {
        let port = fastrand::u16(APP_PORTS);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok((port, listener));
        }
    }
    Err(Error::new("no port between 20000 and 31999 is free on 127.0.0.1"))
}

/// Who asked for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A flag did: another port would surprise.
    Flag(&'static str, u16),
    /// The mesh file did, by this field.
    Field(&'static str, u16),
    /// Nobody: it is the default.
    Default(u16),
}

/// The address to listen on, and a note when it is not the default one.
///
/// # Errors
/// The port that was asked for is in use.
pub fn choose(what: &str, wanted: Wanted) -> Result<(SocketAddr, Option<String>), Error> {
    let port = match wanted {
        Wanted::Flag(_, port) | Wanted::Field(_, port) | Wanted::Default(port) => port,
    };
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Err(error) = try_bind(at(port)) else { return Ok((at(port), None)) };
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "is in use".to_owned(),
        io::ErrorKind::PermissionDenied => "needs rights that you do not have".to_owned(),
        _ => format!("cannot be used ({error})"),
    };
    match wanted {
        Wanted::Flag(flag, _) => Err(Error::new(format!(
            "port {port} of {flag} {why}; give {flag} another one, or leave it out to have a free \
             one found"
        ))),
        Wanted::Field(field, _) => Err(Error::new(format!(
            "port {port} of {field} in the mesh file {why}; change it, or leave it out to have a \
             free one found"
        ))),
        Wanted::Default(_) => {
            let (free, _) = reserve()?;
            Ok((at(free), Some(format!("port {port} {why}: {what} is on {free} instead"))))
        }
    }
}

/// Asks for a fixed port of an application.
///
/// # Errors
/// It is in use.
pub fn check_fixed(field: &str, port: u16) -> Result<(), Error> {
    try_bind((Ipv4Addr::LOCALHOST, port).into()).map_err(|error| {
        Error::new(format!(
            "port {port} of {field} in the mesh file cannot be used ({error}); change it, or \
             leave it out and listen on $PORT"
        ))
    })
}

fn try_bind(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_only_where_it_was_asked_for() {
        let (port, _held) = reserve().unwrap();
        let error = choose("the gateway", Wanted::Flag("--gateway-port", port)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("--gateway-port") && text.contains("is in use"), "{text}");
        let (address, note) = choose("the gateway", Wanted::Default(port)).unwrap();
        assert_ne!(address.port(), port);
        assert!(note.unwrap().contains(&port.to_string()));
    }
}
