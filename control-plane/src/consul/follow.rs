//! Follows Consul's list of services, and each service that is to be taken in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_mesh::model::ServiceName;

use super::answer::Entry;
use super::client::{Client, ConsulError, READ_RULES, Reply, segment};
use super::cursor::Cursor;
use super::damp::Answer;
use super::state::Subject;
use super::{Consul, MAX_HELD};
use crate::control::Control;

/// How long Consul may hold a question back.
const WAIT: Duration = Duration::from_secs(60);
/// The same while there are more services than questions may be held back.
const SHORT_WAIT: Duration = Duration::from_secs(2);
/// Services that are taken in.
const MAX_SERVICES: usize = 1000;
/// Consul's own, which is not for others.
const OWN_SERVICE: &str = "consul";

impl Consul {
    /// Follows everything. Never returns.
    pub async fn run(self: Arc<Self>, control: Arc<Control>) {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().keep(control));
        tasks.spawn(self.clone().catalogue());
        let mut wanted = self.state.wanted.subscribe();
        let mut followers = JoinSet::new();
        let mut running = BTreeSet::new();
        loop {
            let names = wanted.borrow_and_update().clone();
            for name in names {
                if running.insert(name.clone()) {
                    followers.spawn(self.clone().service(name));
                }
            }
            tokio::select! {
                _ = wanted.changed() => {}
                Some(Ok(name)) = followers.join_next() => drop(running.remove(&name)),
            }
        }
    }

    async fn catalogue(self: Arc<Self>) {
        let mut client = Client::new(self.endpoint.clone());
        let mut cursor = Cursor::default();
        loop {
            let asked = Instant::now();
            let reply = client.get("/v1/catalog/services", cursor.index(), WAIT).await;
            let reply = reply.and_then(|reply| self.json(reply));
            match reply {
                Ok((reply, services)) => {
                    self.took(&mut cursor, &reply, asked);
                    if !self.listed(&reply, services) {
                        cursor.failed();
                    }
                }
                Err(error) => {
                    cursor.failed();
                    self.state.failed(Subject::Catalogue, &error);
                }
            }
            tokio::time::sleep(cursor.pause()).await;
        }
    }

    /// Takes in the list of services with their tags. False: it cannot be all of it.
    fn listed(&self, reply: &Reply, services: BTreeMap<String, Vec<String>>) -> bool {
        let mut names = BTreeSet::new();
        let mut skipped = Vec::new();
        for (name, tags) in &services {
            if name == OWN_SERVICE || !self.reading.wants(tags) {
                continue;
            }
            if names.len() == MAX_SERVICES {
                skipped.push(format!("more than {MAX_SERVICES} services"));
                break;
            }
            match name.parse::<ServiceName>() {
                Ok(name) => drop(names.insert(name)),
                Err(error) => skipped.push(format!("service {name:?}: its name {error}")),
            }
        }
        let blind = reply.is_filtered() && names.is_empty();
        if blind {
            let why = self.hidden("any service");
            self.state.trouble(Subject::Catalogue, why);
        } else {
            self.state.worked(&Subject::Catalogue);
        }
        self.state.listed(names, skipped);
        !blind
    }

    /// Follows one service until it is gone.
    async fn service(self: Arc<Self>, name: ServiceName) -> ServiceName {
        let path = format!("/v1/health/service/{}", segment(name.as_str()));
        let subject = Subject::Service(name.clone());
        let mut client = Client::new(self.endpoint.clone());
        let mut cursor = Cursor::default();
        loop {
            let doubt = self.state.doubt(&name);
            let index = if doubt.is_some() { 0 } else { cursor.index() };
            // The semaphore is never closed.
            let permit = self.held.acquire().await.ok();
            let asked = Instant::now();
            let reply = client.get(&path, index, self.wait()).await;
            drop(permit);
            match reply.and_then(|reply| self.json::<Vec<Entry>>(reply)) {
                Ok((reply, entries)) => {
                    self.took(&mut cursor, &reply, asked);
                    let (seen, skipped) = self.reading.read(&name, &entries);
                    let lacks = self.state.lacks(&name, &seen);
                    if index > 0 && lacks {
                        cursor.restart();
                        continue;
                    }
                    if lacks && reply.is_filtered() {
                        cursor.failed();
                        self.state.trouble(subject.clone(), self.hidden(&format!("all of {name}")));
                    } else {
                        self.state.worked(&subject);
                    }
                    let index = (index == 0).then_some(reply.index());
                    let answer = Answer { index, filtered: reply.is_filtered(), seen };
                    if !self.state.answered(&name, answer, skipped) {
                        return name;
                    }
                    tokio::time::sleep(self.state.doubt(&name).unwrap_or(cursor.pause())).await;
                }
                Err(error) => {
                    cursor.failed();
                    self.state.failed(subject.clone(), &error);
                    tokio::time::sleep(cursor.pause()).await;
                }
            }
        }
    }

    fn hidden(&self, what: &str) -> String {
        format!(
            "{} does not show {what} to this token: --consul-token-file must hold one whose \
             policy has {READ_RULES}",
            self.endpoint.url
        )
    }

    fn wait(&self) -> Duration {
        if self.state.count() > MAX_HELD { SHORT_WAIT } else { WAIT }
    }

    fn took(&self, cursor: &mut Cursor, reply: &Reply, asked: Instant) {
        if cursor.took(reply.index(), asked.elapsed()) {
            self.state.reset();
        }
    }

    fn json<T: DeserializeOwned>(&self, reply: Reply) -> Result<(Reply, T), ConsulError> {
        match serde_json::from_slice(&reply.body) {
            Ok(value) => Ok((reply, value)),
            Err(error) => {
                let url = self.endpoint.url.clone();
                Err(ConsulError::Answer { url, why: error.to_string() })
            }
        }
    }
}
