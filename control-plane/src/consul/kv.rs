//! Consul's key/value store, as far as a store needs it: consistent reads, blocking
//! reads, check-and-set, transactions, and locks of sessions.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, ConsulError, Reply};
use super::config::Endpoint;

/// For an answer, beyond the time that Consul was asked to wait.
const ANSWER: Duration = Duration::from_secs(3);
/// Rules that the store needs.
const RULES: &str = "`key_prefix \"PREFIX/\" { policy = \"write\" }`, `session_prefix \"\" { policy \
     = \"write\" }` and `service_prefix \"weir-control-plane\" { policy = \"write\" }`, where \
     PREFIX is --store-prefix";

/// A key and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Without the prefix.
    pub key: String,
    /// Its bytes.
    pub value: Bytes,
    /// Of its last change.
    pub index: u64,
    /// Which session holds its lock.
    pub session: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    key: String,
    value: Option<String>,
    modify_index: u64,
    session: Option<String>,
}

/// How a transaction ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// All of it was made; the keys that were set and their new indexes.
    Made(Vec<(String, u64)>),
    /// Nothing was made.
    Refused {
        /// Which operation failed, from 0.
        op: usize,
        /// In Consul's words.
        why: String,
    },
}

/// Keys below a prefix, by one connection.
pub struct Kv {
    client: Client,
    url: String,
    prefix: Arc<str>,
}

impl Kv {
    /// Nothing is asked yet. `prefix` has no slash at its end.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>, prefix: Arc<str>) -> Self {
        Self { url: endpoint.url.clone(), client: Client::new(endpoint), prefix }
    }

    /// The whole name of a key, for people.
    #[must_use]
    pub fn name(&self, key: &str) -> String {
        format!("{}/{key}", self.prefix)
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<(StatusCode, Reply), ConsulError> {
        let limit = ANSWER + wait + wait / 16;
        let (status, reply) = self.client.ask(method, path, body, limit).await?;
        match status {
            StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok((status, reply)),
            _ => Err(self.client.refusal(status, &reply, RULES)),
        }
    }

    fn wrong(&self, why: impl ToString) -> ConsulError {
        ConsulError::Answer { url: self.url.clone(), why: why.to_string() }
    }

    fn pairs(&self, reply: &Reply) -> Result<Vec<Pair>, ConsulError> {
        let wires: Vec<Wire> = serde_json::from_slice(&reply.body).map_err(|e| self.wrong(e))?;
        let prefix = format!("{}/", self.prefix);
        let pair = |wire: Wire| {
            let value = STANDARD.decode(wire.value.unwrap_or_default());
            Ok(Pair {
                key: wire.key.strip_prefix(&prefix).unwrap_or(&wire.key).to_owned(),
                value: value.map_err(|e| self.wrong(e))?.into(),
                index: wire.modify_index,
                session: wire.session.filter(|session| !session.is_empty()),
            })
        };
        wires.into_iter().map(pair).collect()
    }

    /// Everything that begins with `key`, as it is now.
    ///
    /// # Errors
    /// [`ConsulError`].
    pub async fn list(&mut self, key: &str) -> Result<Vec<Pair>, ConsulError> {
        let path = format!("/v1/kv/{}/{key}?recurse&consistent", self.prefix);
        match self.ask(Method::GET, &path, Bytes::new(), Duration::ZERO).await? {
            (StatusCode::OK, reply) => self.pairs(&reply),
            _ => Ok(Vec::new()),
        }
    }

    /// The same when it is something newer than `index`, or after `wait`; with the
    /// index to wait from next.
    ///
    /// # Errors
    /// [`ConsulError`].
    pub async fn changed(
        &mut self,
        key: &str,
        index: u64,
        wait: Duration,
    ) -> Result<(u64, Vec<Pair>), ConsulError> {
        let (prefix, ms) = (&self.prefix, wait.as_millis());
        let path = format!("/v1/kv/{prefix}/{key}?recurse&index={index}&wait={ms}ms");
        let (status, reply) = self.ask(Method::GET, &path, Bytes::new(), wait).await?;
        // An index that went back is waited for from the start.
        let next = if reply.index() < index { 0 } else { reply.index() };
        match status {
            StatusCode::OK => Ok((next, self.pairs(&reply)?)),
            _ => Ok((next, Vec::new())),
        }
    }

    /// The names of all keys that begin with `key`.
    ///
    /// # Errors
    /// [`ConsulError`].
    pub async fn keys(&mut self, key: &str) -> Result<Vec<String>, ConsulError> {
        let path = format!("/v1/kv/{}/{key}?keys&consistent", self.prefix);
        let (status, reply) = self.ask(Method::GET, &path, Bytes::new(), Duration::ZERO).await?;
        if status != StatusCode::OK {
            return Ok(Vec::new());
        }
        let names: Vec<String> = serde_json::from_slice(&reply.body).map_err(|e| self.wrong(e))?;
        let prefix = format!("{}/", self.prefix);
        Ok(names.iter().map(|n| n.strip_prefix(&prefix).unwrap_or(n).to_owned()).collect())
    }

    /// One key, as it is now.
    ///
    /// # Errors
    /// [`ConsulError`].
    pub async fn get(&mut self, key: &str) -> Result<Option<Pair>, ConsulError> {
        let path = format!("/v1/kv/{}/{key}?consistent", self.prefix);
        match self.ask(Method::GET, &path, Bytes::new(), Duration::ZERO).await? {
            (StatusCode::OK, reply) => Ok(self.pairs(&reply)?.pop()),
            _ => Ok(None),
        }
    }

    /// Sets a key that was last changed at `index`; 0: that is not there. False:
    /// somebody else was faster.
    ///
    /// # Errors
    /// [`ConsulError`]; it may be set nevertheless.
    pub async fn set(&mut self, key: &str, value: Bytes, index: u64) -> Result<bool, ConsulError> {
        let path = format!("/v1/kv/{}/{key}?cas={index}", self.prefix);
        self.yes(&path, value).await
    }

    /// Takes the lock of a key for a session. False: another one has it.
    ///
    /// # Errors
    /// [`ConsulError`]; it may be taken nevertheless.
    pub async fn acquire(
        &mut self,
        key: &str,
        value: Bytes,
        session: &str,
    ) -> Result<bool, ConsulError> {
        let path = format!("/v1/kv/{}/{key}?acquire={session}", self.prefix);
        self.yes(&path, value).await
    }

    async fn yes(&mut self, path: &str, body: Bytes) -> Result<bool, ConsulError> {
        let (status, reply) = self.ask(Method::PUT, path, body, Duration::ZERO).await?;
        Ok(status == StatusCode::OK && reply.body.trim_ascii() == b"true")
    }

    /// Writes to another path than a key's; what it answers, as JSON.
    ///
    /// # Errors
    /// [`ConsulError`].
    pub async fn put(&mut self, path: &str, body: &Value) -> Result<Value, ConsulError> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let (status, reply) = self.ask(Method::PUT, path, body, Duration::ZERO).await?;
        if status != StatusCode::OK {
            return Err(self.client.refusal(status, &reply, RULES));
        }
        Ok(serde_json::from_slice(&reply.body).unwrap_or(Value::Null))
    }

    /// Sets keys, all or none: each must have been changed last at its index (0: it is
    /// not there), and `session` must hold the lock of the key `lock`.
    ///
    /// # Errors
    /// [`ConsulError`]; it may be made nevertheless.
    pub async fn transact(
        &mut self,
        lock: &str,
        session: &str,
        sets: &[(&str, u64, Bytes)],
    ) -> Result<Done, ConsulError> {
        let verb = |verb: &str, key: &str| json!({"Verb": verb, "Key": self.name(key)});
        let mut held = verb("check-session", lock);
        held["Session"] = session.into();
        let mut ops = vec![json!({"KV": held})];
        for (key, index, value) in sets {
            let mut set = verb("cas", key);
            set["Index"] = (*index).into();
            set["Value"] = STANDARD.encode(value).into();
            ops.push(json!({"KV": set}));
        }
        let body = Value::from(ops).to_string().into();
        let (status, reply) = self.ask(Method::PUT, "/v1/txn", body, Duration::ZERO).await?;
        let answer: Value = serde_json::from_slice(&reply.body).map_err(|e| self.wrong(e))?;
        if status == StatusCode::CONFLICT {
            let first = &answer["Errors"][0];
            let op = first["OpIndex"].as_u64().and_then(|op| usize::try_from(op).ok());
            let why = first["What"].as_str().unwrap_or_default().to_owned();
            return Ok(Done::Refused { op: op.unwrap_or(usize::MAX), why });
        }
        let prefix = format!("{}/", self.prefix);
        let made = answer["Results"].as_array().into_iter().flatten().filter_map(|result| {
            let key = result["KV"]["Key"].as_str()?.strip_prefix(&prefix)?;
            Some((key.to_owned(), result["KV"]["ModifyIndex"].as_u64()?))
        });
        Ok(Done::Made(made.collect()))
    }
}
