//! Changes that are safe to send again: each has an idempotency key, so that a
//! control plane that dies in between does the change once.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use crate::Error;
use crate::client::{Client, Connect};

/// How long a control plane may be away.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// The key that was given, or a new one that nobody else has.
#[must_use]
pub fn key(given: Option<String>) -> String {
    given.unwrap_or_else(|| format!("weir-{:032x}", fastrand::u128(..)))
}

/// Calls until there is an answer, also a refusal. Only what has a key may be called
/// again: whether a lost call was done is not known.
///
/// # Errors
/// The refusal, or that of the last try.
pub async fn call<T, F>(connect: &Connect, ask: impl Fn(Client) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let mut client = connect.client().await?;
    let mut deadline = None;
    loop {
        let status = match ask(client.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        // It may have waited long already: the time to come back begins now.
        let until = *deadline.get_or_insert_with(|| Instant::now() + LIMIT);
        if !is_lost(&status) || Instant::now() >= until {
            return Err(status.into());
        }
        client = back(connect, until).await?;
    }
}

/// A client of a control plane that was away, once it is back.
async fn back(connect: &Connect, until: Instant) -> Result<Client, Error> {
    loop {
        tokio::time::sleep(PAUSE).await;
        match connect.client().await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => {}
        }
    }
}

/// Reads a stream that says at its beginning where things are, until `read` has what
/// it looks for. When the stream breaks off, or ends before, it is opened again.
///
/// # Errors
/// A refusal; or the control plane was away for too long.
pub async fn follow<T, M, F>(
    connect: &Connect,
    open: impl Fn(Client) -> F,
    mut read: impl FnMut(M) -> Result<Option<T>, Error>,
) -> Result<T, Error>
where
    F: Future<Output = Result<tonic::Response<Streaming<M>>, Status>>,
{
    let mut client = connect.client().await?;
    let mut deadline = None;
    loop {
        let broken = match open(client.clone()).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(message)) => {
                            deadline = None;
                            if let Some(found) = read(message)? {
                                return Ok(found);
                            }
                        }
                        Ok(None) => break Status::unavailable("it ended the stream"),
                        Err(status) => break status,
                    }
                }
            }
        };
        let until = *deadline.get_or_insert_with(|| Instant::now() + LIMIT);
        // Nothing is done twice by reading again, whoever says that it is unavailable.
        let gone = is_lost(&broken) || broken.code() == Code::Unavailable;
        if !gone || Instant::now() >= until {
            return Err(broken.into());
        }
        client = back(connect, until).await?;
    }
}

/// Whether the connection broke, so that nothing is known of the call. What the API
/// itself says has no cause in this process.
fn is_lost(status: &Status) -> bool {
    status.source().is_some()
        || (status.code() == Code::Unavailable && status.message().contains("is stopping"))
}
