//! Requests over HTTP/1.1, one at a time on each connection.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::plan::Plan;
use super::record::{Answer, Kind};
use super::{CONNECT, Run, io_kind};
use crate::buffer::Buffer;
use crate::http1::{Body, Malformed, Piece, response};
use crate::net;

/// A request up to so long is written whole before an answer is looked for.
const ONE_WRITE: u64 = 16 * 1024;
/// The buffer that answers are read into, for short and for long ones.
const BUFFER: std::ops::RangeInclusive<u64> = 16 * 1024..=256 * 1024;

/// What is written for every request.
pub struct Script {
    /// The head, and the body if that is short.
    first: Vec<u8>,
    /// Whether a body follows.
    long: bool,
    buffer: usize,
}

impl Script {
    pub fn new(plan: &Plan) -> Self {
        let head = &plan.head;
        let path = head.uri().path_and_query().map_or("/", |path| path.as_str());
        let host = head.uri().authority().map_or("", |authority| authority.as_str());
        let mut first = format!("{} {path} HTTP/1.1\r\nhost: {host}\r\n", head.method());
        if plan.churn {
            first.push_str("connection: close\r\n");
        }
        let mut first = first.into_bytes();
        for (name, value) in head.headers() {
            first.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        first.extend(b"\r\n");
        let long = plan.body.len() > ONE_WRITE;
        if !long {
            first.extend(plan.body.piece(0, ONE_WRITE));
        }
        let buffer = (plan.expected.len() + 4096).clamp(*BUFFER.start(), *BUFFER.end());
        // At most 256 KiB.
        Self { first, long, buffer: buffer as usize }
    }
}

/// A connection that is ready for a request.
pub struct Connection {
    stream: TcpStream,
    buffer: Buffer,
}

impl Connection {
    /// Whether it rests, and has not ended.
    pub fn is_alive(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// Sends requests until there are no more to send.
pub async fn work(run: &Run, script: &Script) {
    let mut slot = None;
    let mut now = Instant::now();
    while let Some(intended) = run.pace.next(now).await {
        now = match exchange(run, script, &mut slot).await {
            Ok(answer) => run.record.ok(intended, &answer),
            Err(kind) => run.record.failed(kind),
        };
    }
}

/// Sends one request and reads its answer. The connection is kept in `slot`
/// unless it is of no more use.
pub async fn exchange(
    run: &Run,
    script: &Script,
    slot: &mut Option<Connection>,
) -> Result<Answer, Kind> {
    let mut connection = match slot.take() {
        Some(connection) => connection,
        None => connect(run, script).await?,
    };
    let Connection { stream, buffer } = &mut connection;
    let (keep_alive, answer) = if script.long {
        send_long(run, script, stream, buffer).await?
    } else {
        stream.write_all(&script.first).await.map_err(|e| io_kind("write", &e))?;
        read_answer(run, stream, buffer).await?
    };
    if keep_alive && !run.plan.churn {
        *slot = Some(connection);
    }
    answer
}

async fn connect(run: &Run, script: &Script) -> Result<Connection, Kind> {
    let stream = match timeout(CONNECT, net::connect(run.plan.target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(io_kind("connect", &error)),
        Err(_) => Err("connect: no answer".into()),
    };
    run.connected(stream.is_ok()).await;
    Ok(Connection { stream: stream?, buffer: Buffer::new(script.buffer) })
}

/// Writes and reads at once: a server may answer before it has read all.
async fn send_long(
    run: &Run,
    script: &Script,
    stream: &mut TcpStream,
    buffer: &mut Buffer,
) -> Result<(bool, Result<Answer, Kind>), Kind> {
    let (mut reader, mut writer) = stream.split();
    let mut write = pin!(write_long(&run.plan, script, &mut writer));
    let mut read = pin!(read_answer(run, &mut reader, buffer));
    let mut written = false;
    loop {
        tokio::select! {
            biased;
            // If it fails, the answer may say why.
            result = &mut write, if !written => {
                if result.is_err() {
                    return read.await.map(|(_, answer)| (false, answer));
                }
                written = true;
            }
            answer = &mut read => {
                return answer.map(|(keep_alive, answer)| (keep_alive && written, answer));
            }
        }
    }
}

async fn write_long(
    plan: &Plan,
    script: &Script,
    writer: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    writer.write_all(&script.first).await?;
    let mut sent = 0;
    while sent < plan.body.len() {
        let piece = plan.body.piece(sent, u64::MAX);
        writer.write_all(&piece).await?;
        sent += piece.len() as u64;
    }
    Ok(())
}

/// Reads one answer whole: whether the connection may go on, and what the
/// answer was. An error means that the connection is of no more use.
async fn read_answer(
    run: &Run,
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut Buffer,
) -> Result<(bool, Result<Answer, Kind>), Kind> {
    let malformed = |error: Malformed| Kind::from(error.0);
    let (head_length, status, framing, keep_alive, upstream) = loop {
        match response(buffer.filled()).map_err(malformed)? {
            Some(head) if head.status < 200 => {
                let length = head.length;
                buffer.consume(length);
            }
            Some(head) => {
                let upstream = head.upstream.map(|name| run.record.name(name));
                break (head.length, head.status, head.framing, head.keep_alive, upstream);
            }
            None => {
                if !buffer.fill(reader).await.map_err(|e| io_kind("read", &e))? {
                    return Err("connection closed before an answer".into());
                }
            }
        }
    };
    buffer.consume(head_length);
    let mut body = Body::new(framing);
    let (mut length, mut right) = (0, true);
    loop {
        let (piece, used) = body.next(buffer.filled()).map_err(malformed)?;
        let more = match piece {
            Piece::Data(data) => {
                right = right && run.plan.expected.matches(length, data);
                length += data.len() as u64;
                false
            }
            Piece::More => true,
            Piece::End => {
                buffer.consume(used);
                break;
            }
        };
        buffer.consume(used);
        if more && !buffer.fill(reader).await.map_err(|e| io_kind("read", &e))? {
            if body.may_end_here() {
                break;
            }
            return Err("connection closed within a body".into());
        }
    }
    let answer = if status != 200 {
        Err(format!("status {status}").into())
    } else if length != run.plan.expected.len() {
        Err("body length".into())
    } else if !right {
        Err("body differs".into())
    } else {
        Ok(Answer { bytes: length, upstream })
    };
    // Bytes after an answer belong to no request.
    Ok((keep_alive && buffer.filled().is_empty(), answer))
}
