//! The connection to Redis, and another one whenever it ends.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use weir_mesh::policy::rate_limit::Store;

use super::{Health, Question};
use crate::limit::local::Verdict;
use crate::limit::resp::{self, Reply};

const SCRIPT: &str = include_str!("../window.lua");
/// By which EVALSHA names it.
static SCRIPT_SHA1: LazyLock<String> = LazyLock::new(|| {
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, SCRIPT.as_bytes());
    sha1.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
});

const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// To connect, to prove who we are, and to be answered once.
const CONNECT: Duration = Duration::from_secs(1);
/// A server that owes an answer for so long is away; longer when more patience
/// is asked for.
const STALL: Duration = Duration::from_millis(250);
/// Questions on the way; further ones wait in the queue.
const FLIGHT: usize = 1024;
/// Between two errors that are told: each request may meet one.
const COMPLAIN: Duration = Duration::from_secs(10);
/// What is read at once.
const READ: usize = 8 * 1024;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Keeps a connection for as long as anyone may ask.
pub(super) async fn keep(store: Store, mut asked: mpsc::Receiver<Question>, health: Arc<Health>) {
    let mut backoff = BACKOFF;
    loop {
        let error = match timeout(CONNECT, connect(&store)).await {
            Ok(Ok(stream)) => {
                health.set(true);
                tracing::info!(store = %store.url, "connected to the store of rate limits");
                let began = Instant::now();
                let served = serve(stream, &mut asked, STALL.max(2 * store.timeout)).await;
                // One that takes connections and breaks them is not well.
                if began.elapsed() > BACKOFF_MAX {
                    backoff = BACKOFF;
                }
                match served {
                    Ok(()) => return health.set(false),
                    Err(error) => error,
                }
            }
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {} ms", CONNECT.as_millis()).into(),
        };
        health.set(false);
        let wait = backoff.mul_f64(0.5 + fastrand::f64());
        let url = &store.url;
        tracing::warn!(store = %url, %error, retry_in = ?wait, "the store of rate limits is away");
        backoff = (backoff * 2).min(BACKOFF_MAX);
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                // Asked before it was known: dropped, so that nobody waits.
                question = asked.recv() => if question.is_none() { return },
            }
        }
        while asked.try_recv().is_ok() {}
    }
}

async fn connect(store: &Store) -> Result<TcpStream, Error> {
    let url = &store.url;
    let mut stream = TcpStream::connect((&*url.host, url.port)).await?;
    stream.set_nodelay(true)?;
    let mut commands = BytesMut::new();
    let mut expected = Vec::new();
    if let Some(name) = &store.password_env {
        // The name of the variable may be told, never what it holds.
        let password = std::env::var(&**name)
            .map_err(|_| format!("{name}, which passwordEnv names, is not in the environment"))?;
        match &url.user {
            None => resp::command(&mut commands, &[b"AUTH", password.as_bytes()]),
            Some(user) => {
                let parts = [b"AUTH", user.as_bytes(), password.as_bytes()];
                resp::command(&mut commands, &parts);
            }
        }
        expected.push("OK");
    }
    if url.database > 0 {
        resp::command(&mut commands, &[b"SELECT", url.database.to_string().as_bytes()]);
        expected.push("OK");
    }
    resp::command(&mut commands, &[b"PING"]);
    expected.push("PONG");
    stream.write_all(&commands).await?;
    let mut input = BytesMut::with_capacity(READ);
    for wanted in expected {
        let reply = loop {
            if let Some(reply) = resp::parse(&mut input)? {
                break reply;
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        match reply {
            Reply::Simple(text) if text == wanted => {}
            Reply::Error(text) => return Err(text.into()),
            other => return Err(format!("{wanted} was expected, not {other:?}").into()),
        }
    }
    Ok(stream)
}

/// A question that was sent.
struct Sent {
    question: Question,
    at: Instant,
    /// With the script itself, because the server did not know it.
    whole: bool,
}

struct Line {
    out: BytesMut,
    input: BytesMut,
    sent: VecDeque<Sent>,
    /// When an error was last told.
    complained: Option<Instant>,
}

/// Asks and answers until nobody can ask any more.
async fn serve(
    mut stream: TcpStream,
    asked: &mut mpsc::Receiver<Question>,
    stall: Duration,
) -> Result<(), Error> {
    let (mut reader, mut writer) = stream.split();
    let mut line = Line {
        out: BytesMut::new(),
        input: BytesMut::with_capacity(READ),
        sent: VecDeque::new(),
        complained: None,
    };
    loop {
        let oldest = line.sent.front().map(|sent| sent.at + stall);
        tokio::select! {
            question = asked.recv(), if line.sent.len() < FLIGHT => {
                let Some(question) = question else { return Ok(()) };
                line.send(question, false);
                while line.sent.len() < FLIGHT && let Ok(question) = asked.try_recv() {
                    line.send(question, false);
                }
            }
            written = writer.write_buf(&mut line.out), if !line.out.is_empty() => {
                written?;
            }
            read = reader.read_buf(&mut line.input) => {
                if read? == 0 {
                    return Err("the server closed the connection".into());
                }
                line.receive()?;
            }
            () = stalled(oldest) => {
                return Err(format!("no answer within {} ms", stall.as_millis()).into());
            }
        }
    }
}

async fn stalled(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Line {
    fn send(&mut self, question: Question, whole: bool) {
        let (per, limit, cost) = (
            question.per.as_millis().to_string(),
            question.limit.to_string(),
            question.cost.to_string(),
        );
        let (verb, script): (&[u8], &[u8]) = match whole {
            false => (b"EVALSHA", SCRIPT_SHA1.as_bytes()),
            true => (b"EVAL", SCRIPT.as_bytes()),
        };
        let key = question.key.as_bytes();
        let parts = [verb, script, b"1", key, per.as_bytes(), limit.as_bytes(), cost.as_bytes()];
        resp::command(&mut self.out, &parts);
        self.sent.push_back(Sent { question, at: Instant::now(), whole });
    }

    fn receive(&mut self) -> Result<(), Error> {
        while let Some(reply) = resp::parse(&mut self.input)? {
            let Some(sent) = self.sent.pop_front() else {
                return Err("an answer came that nobody asked for".into());
            };
            match reply {
                Reply::Integers(numbers) => {
                    let verdict = verdict(&numbers).ok_or("the script's answer is not ours")?;
                    // Who asked may have gone.
                    let _ = sent.question.answer.send(verdict);
                }
                Reply::Error(text) if text.starts_with("NOSCRIPT") && !sent.whole => {
                    if !sent.question.answer.is_closed() {
                        self.send(sent.question, true);
                    }
                }
                // Loading, read-only, out of memory: the next one may answer.
                Reply::Error(text) => {
                    let now = Instant::now();
                    if self.complained.is_none_or(|at| now - at > COMPLAIN) {
                        self.complained = Some(now);
                        tracing::warn!(error = text, "the store of rate limits cannot count");
                    }
                }
                other => return Err(format!("{other:?} is no answer of the script").into()),
            }
        }
        Ok(())
    }
}

fn verdict(numbers: &[i64]) -> Option<Verdict> {
    let [allowed @ (0 | 1), remaining, again, reset] = *numbers else { return None };
    let millis = |number: i64| u64::try_from(number).ok().map(Duration::from_millis);
    Some(Verdict {
        refused: (allowed == 0).then_some(millis(again)?),
        remaining: u64::try_from(remaining).ok()?,
        reset: millis(reset)?,
    })
}
