//! Bodies over HTTP/2, within its windows.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{RecvStream, SendStream};

/// Of one stream, in bytes: as Weir's routers have it.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// Of a connection, in bytes: as Weir's routers have it.
pub const CONNECTION_WINDOW: u32 = 4 << 20;

/// The next piece of a body, whose room is given back at once.
pub async fn read(body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(piece) = body.data().await else { return Ok(None) };
    let piece = piece?;
    body.flow_control().release_capacity(piece.len())?;
    Ok(Some(piece))
}

/// Sends `bytes` when there is room for them, and then the end of the stream
/// if this was the last.
pub async fn send(
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    last: bool,
) -> Result<(), h2::Error> {
    if bytes.is_empty() {
        return stream.send_data(bytes, last);
    }
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        // `poll_capacity` tells of new room only, not of what is there.
        let room = match stream.capacity() {
            0 => match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(room) => room?,
                // The stream is closed; who reads it says why.
                None => return Err(h2::Reason::CANCEL.into()),
            },
            room => room,
        };
        if room > 0 {
            let piece = bytes.split_to(room.min(bytes.len()));
            stream.send_data(piece, last && bytes.is_empty())?;
        }
    }
    Ok(())
}
