//! Which ports the mesh listens on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as SocketAddrUnix, UnixListener};

use tokio::net::TcpSocket;

use crate::Error;

/// Below the range that Linux gives to outgoing connections, so that a program
/// that is started again finds its port free.
const APP_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that is this mesh's while this is held.
#[derive(Debug)]
pub struct Reservation {
    port: u16,
    /// Keeps everyone away until the port's process is started. Bound, but not
    /// listening: a router that could connect would take it for its application.
    socket: Option<TcpSocket>,
    /// Keeps other meshes away after that: between a process's start, or its
    /// death, and its own bind they would find the port free. A name in the
    /// abstract namespace is taken by one at a time, and goes with its process.
    _claim: UnixListener,
}

impl Reservation {
    fn new(port: u16) -> io::Result<Self> {
        let name = SocketAddrUnix::from_abstract_name(format!("weir-up/port/{port}"))?;
        let claim = UnixListener::bind_addr(&name)?;
        let socket = TcpSocket::new_v4()?;
        // As the process will: connections of an earlier mesh may still linger.
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
        Ok(Self { port, socket: Some(socket), _claim: claim })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address on 127.0.0.1.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Makes way for the process that is about to listen.
    pub fn make_way(&mut self) {
        self.socket = None;
    }
}

/// Any free port.
///
/// # Errors
/// There is none.
pub fn reserve() -> Result<Reservation, Error> {
    (0..1_000)
        .find_map(|_| Reservation::new(fastrand::u16(APP_PORTS)).ok())
        .ok_or_else(|| Error::new("no port between 20000 and 31999 is free on 127.0.0.1"))
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

/// The port to listen on, and a note when it is not the default one.
///
/// # Errors
/// The port that was asked for is in use.
pub fn choose(what: &str, wanted: Wanted) -> Result<(Reservation, Option<String>), Error> {
    let port = match wanted {
        Wanted::Flag(_, port) | Wanted::Field(_, port) | Wanted::Default(port) => port,
    };
    let error = match Reservation::new(port) {
        Ok(reservation) => return Ok((reservation, None)),
        Err(error) => error,
    };
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
            let free = reserve()?;
            let note = format!("port {port} {why}: {what} is on {} instead", free.port());
            Ok((free, Some(note)))
        }
    }
}

/// A port that an application must have.
///
/// # Errors
/// It is in use.
pub fn fixed(field: &str, port: u16) -> Result<Reservation, Error> {
    Reservation::new(port).map_err(|error| {
        Error::new(format!(
            "port {port} of {field} in the mesh file cannot be used ({error}); change it, or \
             leave it out and listen on $PORT"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_only_where_it_was_asked_for() {
        let held = reserve().unwrap();
        let port = held.port();
        let error = choose("the gateway", Wanted::Flag("--gateway-port", port)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("--gateway-port") && text.contains("is in use"), "{text}");
        let (other, note) = choose("the gateway", Wanted::Default(port)).unwrap();
        assert_ne!(other.port(), port);
        assert!(note.unwrap().contains(&port.to_string()));
    }

    #[test]
    fn a_port_stays_ones_own_while_its_process_is_away() {
        let mut held = reserve().unwrap();
        held.make_way();
        // Free for the process, but not for another mesh.
        drop(std::net::TcpListener::bind(held.address()).unwrap());
        assert!(Reservation::new(held.port()).is_err());
        let port = held.port();
        drop(held);
        assert!(Reservation::new(port).is_ok());
    }
}
