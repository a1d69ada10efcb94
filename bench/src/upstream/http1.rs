//! Answers over HTTP/1.1.

use std::io;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{Fault, Upstream, Wanted, spoil};
use crate::buffer::Buffer;
use crate::http1::{Body, Framing, Malformed, Piece, Request, request};
use crate::pattern;

/// Of the buffer that requests are read into. Uploads want it large.
const BUFFER: usize = 64 * 1024;
/// A body up to so long is sent by the same write as its head.
const ONE_WRITE: u64 = 64 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is the same for all connections.
pub struct Answers {
    /// The answer that nearly every request gets, whole.
    usual: Option<Vec<u8>>,
}

impl Answers {
    pub fn new(upstream: &Upstream) -> Self {
        let usual = (upstream.body_bytes <= ONE_WRITE).then(|| {
            let mut answer = head(upstream, "200 OK", upstream.body_bytes, true);
            answer.extend(pattern::prefix(upstream.body_bytes).flatten());
            answer
        });
        Self { usual }
    }
}

fn head(upstream: &Upstream, status: &str, length: u64, keep_alive: bool) -> Vec<u8> {
    let close = if keep_alive { "" } else { "connection: close\r\n" };
    let name = &upstream.name;
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\n\
         content-length: {length}\r\n{close}x-upstream: {name}\r\n\r\n"
    )
    .into_bytes()
}

/// What is kept of a request when its head leaves the buffer.
struct Head {
    wanted: Wanted,
    keep_alive: bool,
    framing: Framing,
    expects_continue: bool,
    length: usize,
}

impl Head {
    fn of(request: &Request<'_>, upstream: &Upstream) -> Self {
        Self {
            wanted: upstream.wanted(request.method, request.path),
            keep_alive: request.keep_alive,
            framing: request.framing,
            expects_continue: request.expects_continue,
            length: request.length,
        }
    }
}

/// Answers requests until the client has no more.
pub async fn serve(
    mut stream: TcpStream,
    upstream: &Upstream,
    answers: &Answers,
) -> io::Result<()> {
    let mut buffer = Buffer::new(BUFFER);
    loop {
        let asked = match request(buffer.filled()) {
            Ok(head) => head.map(|head| Head::of(&head, upstream)),
            Err(error) => return refuse(&mut stream, upstream, error).await,
        };
        let Some(Head { wanted, keep_alive, framing, expects_continue, length }) = asked else {
            if buffer.fill(&mut stream).await? {
                continue;
            }
            return Ok(());
        };
        buffer.consume(length);
        if expects_continue {
            stream.write_all(CONTINUE).await?;
        }
        let right = match (framing, wanted) {
            (Framing::Length(0), Wanted::Bytes(_)) => true,
            _ => match read_body(&mut stream, &mut buffer, framing, wanted).await? {
                Ok(right) => right,
                Err(error) => return refuse(&mut stream, upstream, error).await,
            },
        };
        match (wanted, upstream.fault()) {
            (_, Fault::Status) => {
                let answer = head(upstream, "503 Service Unavailable", 0, keep_alive);
                stream.write_all(&answer).await?;
            }
            (Wanted::Sink(_), _) => {
                let status = if right { "200 OK" } else { "400 Bad Request" };
                stream.write_all(&head(upstream, status, 0, keep_alive)).await?;
            }
            (Wanted::Bytes(count), Fault::None) if count == upstream.body_bytes && keep_alive => {
                match &answers.usual {
                    Some(answer) => stream.write_all(answer).await?,
                    None => send(&mut stream, upstream, count, true, false).await?,
                }
            }
            (Wanted::Bytes(count), fault) => {
                let corrupt = fault == Fault::Corrupt;
                send(&mut stream, upstream, count, keep_alive, corrupt).await?;
            }
        }
        if !keep_alive {
            return stream.shutdown().await;
        }
    }
}

async fn refuse(stream: &mut TcpStream, upstream: &Upstream, error: Malformed) -> io::Result<()> {
    stream.write_all(&head(upstream, "400 Bad Request", 0, false)).await?;
    eprintln!("weir-bench: a request with {}", error.0);
    stream.shutdown().await
}

async fn send(
    stream: &mut TcpStream,
    upstream: &Upstream,
    length: u64,
    keep_alive: bool,
    corrupt: bool,
) -> io::Result<()> {
    let mut first = head(upstream, "200 OK", length, keep_alive);
    let together = length.min(ONE_WRITE);
    first.extend(pattern::prefix(together).flatten());
    if corrupt && together > 0 {
        first = spoil(&first);
    }
    stream.write_all(&first).await?;
    let mut sent = together;
    while sent < length {
        let piece = pattern::from(sent, length - sent);
        stream.write_all(piece).await?;
        sent += piece.len() as u64;
    }
    Ok(())
}

/// Reads a request's body whole. Whether it is what it must be matters only
/// for the sink.
async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Buffer,
    framing: Framing,
    wanted: Wanted,
) -> io::Result<Result<bool, Malformed>> {
    let mut body = Body::new(framing);
    let (mut length, mut right) = (0, true);
    loop {
        let used = match body.next(buffer.filled()) {
            Err(error) => return Ok(Err(error)),
            Ok((Piece::Data(data), used)) => {
                right = right && pattern::matches(length, data);
                length += data.len() as u64;
                used
            }
            Ok((Piece::End, used)) => {
                buffer.consume(used);
                break;
            }
            Ok((Piece::More, used)) => {
                buffer.consume(used);
                if !buffer.fill(stream).await? {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
        };
        buffer.consume(used);
    }
    let expected = match wanted {
        Wanted::Sink(expected) => expected,
        Wanted::Bytes(_) => None,
    };
    Ok(Ok(right && expected.is_none_or(|expected| expected == length)))
}
