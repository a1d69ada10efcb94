//! What a connection that was redirected to us speaks. Nothing is taken from the
//! socket, and nobody waits longer than the bound: a server may be the first to
//! speak.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use weir_mesh::identity::MESH_PROTOCOL;

use super::HELLO;
use super::hello::{self, Hello};

/// HTTP's methods (RFC 9110 §9.3, RFC 5789), and how HTTP/2 begins (RFC 9113 §3.4).
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PRI ",
];
/// Of a request's first line, which must end in a version to be one.
const LINE: usize = 8 * 1024;

/// What the first bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1 or HTTP/2.
    Http,
    /// TLS.
    Tls,
    /// Anything else, or nothing within the bound.
    Opaque,
}

/// Looks at what has come. None: more must come.
#[must_use]
pub fn look(bytes: &[u8]) -> Option<Speaks> {
    match bytes {
        [] | [22] => return None,
        [22, 3, ..] => return Some(Speaks::Tls),
        _ => {}
    }
    let begins = |method: &&&[u8]| {
        let length = method.len().min(bytes.len());
        bytes[..length] == method[..length]
    };
    let Some(method) = METHODS.iter().find(begins) else { return Some(Speaks::Opaque) };
    if bytes.len() < method.len() {
        return None;
    }
    // Others say GET too: only HTTP says its version at the line's end.
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
        return (bytes.len() >= LINE).then_some(Speaks::Http);
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let version = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
    Some(if version.starts_with(b"HTTP/") { Speaks::Http } else { Speaks::Opaque })
}

/// Whether a client that should speak HTTP speaks TLS. One that says nothing does not.
///
/// # Errors
/// The socket's.
pub async fn is_tls(stream: &TcpStream, bound: Duration) -> io::Result<bool> {
    let mut bytes = [0; 2];
    let look = async {
        loop {
            match stream.peek(&mut bytes).await? {
                1 if bytes[0] == 22 => sleep(Duration::from_millis(1)).await,
                count => return Ok(count == 2 && bytes == [22, 3]),
            }
        }
    };
    timeout(bound, look).await.unwrap_or(Ok(false))
}

/// Waits for the first bytes, for `bound` at most.
///
/// # Errors
/// The socket's.
pub async fn detect(stream: &TcpStream, bound: Duration) -> io::Result<Speaks> {
    match timeout(bound, wait(stream)).await {
        Ok(speaks) => speaks,
        Err(_) => Ok(Speaks::Opaque),
    }
}

/// What a connection to a pod begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// The TLS of a router of the mesh.
    Mesh,
    /// Another's TLS.
    Tls,
    /// Anything else, or nothing within the bound.
    Other,
    /// The client has closed it.
    Gone,
}

/// Looks at what comes first, for which it waits `bound` at most; for the rest of a
/// ClientHello somewhat longer.
///
/// # Errors
/// The socket's.
pub async fn opens(stream: &TcpStream, bound: Duration) -> io::Result<Opens> {
    let mut first = [0];
    match timeout(bound, stream.peek(&mut first)).await {
        Err(_) => return Ok(Opens::Other),
        Ok(peeked) => {
            if peeked? == 0 {
                return Ok(Opens::Gone);
            }
        }
    }
    match timeout(HELLO, hello(stream)).await {
        Ok(opens) => opens,
        Err(_) => Ok(Opens::Other),
    }
}

async fn hello(stream: &TcpStream) -> io::Result<Opens> {
    let (mut buffer, mut seen) = (vec![0; 1024], 0);
    loop {
        let peeked = stream.peek(&mut buffer).await?;
        match hello::offers(&buffer[..peeked], MESH_PROTOCOL) {
            Hello::Whole(true) => return Ok(Opens::Mesh),
            Hello::Whole(false) => return Ok(Opens::Tls),
            Hello::Other => return Ok(Opens::Other),
            Hello::Part if peeked >= hello::LIMIT => return Ok(Opens::Other),
            Hello::Part => {}
        }
        if peeked == buffer.len() {
            buffer.resize(hello::LIMIT, 0);
        } else if peeked == seen {
            // More is to come, and readiness alone would not wait for it.
            sleep(Duration::from_millis(1)).await;
        }
        seen = peeked;
    }
}

async fn wait(stream: &TcpStream) -> io::Result<Speaks> {
    let mut small = [0; 64];
    let (mut large, mut seen) = (Vec::new(), 0);
    loop {
        // Most say it in their first line; a large buffer is for long ones.
        let buffer = if seen < small.len() { &mut small[..] } else { &mut large };
        let peeked = stream.peek(buffer).await?;
        if peeked == 0 {
            return Ok(Speaks::Opaque);
        }
        if let Some(speaks) = look(&buffer[..peeked]) {
            return Ok(speaks);
        }
        if peeked == small.len() && large.is_empty() {
            large = vec![0; LINE];
        } else if peeked == seen {
            // More is to come, and readiness alone would not wait for it.
            sleep(Duration::from_millis(1)).await;
        }
        seen = peeked;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_is_taken_for_http() {
        for http in ["GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM", "PATCH /a b HTTP/1.0\n"] {
            assert_eq!(look(http.as_bytes()), Some(Speaks::Http), "{http}");
        }
        for other in ["PING\r\n", "GET key\r\n", "*1\r\n$4\r\n", "get a\r\n", "SSH-2.0-x\r\n", "\0"]
        {
            assert_eq!(look(other.as_bytes()), Some(Speaks::Opaque), "{other}");
        }
        assert_eq!(look(&[22, 3, 1]), Some(Speaks::Tls));
        for part in ["", "G", "GET", "GET ", "GET /index.html HT", "P"] {
            assert_eq!(look(part.as_bytes()), None, "{part}");
        }
        assert_eq!(look(&[b"GET /", &[b'a'; LINE][..]].concat()), Some(Speaks::Http));
    }
}
