//! Who leads, and which control planes there are: by sessions of Consul.
//!
//! Each control plane has a session, which lives as long as a TTL check of its own
//! passes. By the session it holds the key `members/replica/NAME`, which says where it
//! is, and one of them holds `members/lead`. A session that ends takes its keys with
//! it. The TTL of a session itself is at least 10 s; that of a check may be shorter.
//!
//! | a leader that ... | stops leading | another leads |
//! | --- | --- | --- |
//! | is told to stop | at once | at once: it ends its session |
//! | is killed | at once | [`TTL`] after its last word, at most |
//! | does not reach Consul | [`LEASE`] after its last word | as above, so after that |

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ConsulError;
use super::client::segment;
use super::config::Endpoint;
use super::kv::{Kv, Pair};
use crate::control::Control;
use crate::replica::{Lead, Peer};

/// The lock of the one that leads.
pub const LEAD: &str = "members/lead";
const MEMBERS: &str = "members/";
const REPLICA: &str = "members/replica/";
/// Without a word for so long, Consul takes a control plane for dead.
const TTL: Duration = Duration::from_secs(3);
/// Without an answer to a word for so long, a leader leads no more. Counted from when
/// the word was sent, so it is over before Consul gives the lead to another.
const LEASE: Duration = Duration::from_millis(2700);
/// Between words.
const PASS: Duration = Duration::from_millis(500);
/// How long Consul may hold a question back.
const WAIT: Duration = Duration::from_secs(30);
/// After a failure.
const RETRY: Duration = Duration::from_millis(100);
/// For the last words when the process stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// The session by which this control plane leads; what is written says so, and is
/// refused when it does not hold the lead any more.
#[derive(Default)]
pub struct LeadSession(Mutex<Option<String>>);

impl LeadSession {
    /// None: this control plane does not lead.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets it.
    pub fn set(&self, session: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }
}

/// What a member says of itself.
#[derive(Serialize, Deserialize)]
struct Member {
    name: String,
    mesh: SocketAddr,
}

/// One control plane's part in it.
pub struct Election {
    /// How to reach Consul.
    pub endpoint: Arc<Endpoint>,
    /// Of the store's keys.
    pub prefix: Arc<str>,
    /// What the store writes with.
    pub session: Arc<LeadSession>,
    /// Where others reach this one.
    pub address: SocketAddr,
    /// What is told of it.
    pub control: Arc<Control>,
    /// Of this process alone: one that takes the place of a killed one must not keep
    /// the other's session alive.
    pub run: u64,
}

/// What there is in Consul of all members.
struct View {
    members: Vec<Pair>,
}

impl View {
    fn lead(&self) -> Option<&Pair> {
        self.members.iter().find(|pair| pair.key == LEAD && pair.session.is_some())
    }

    fn holds(&self, key: &str, session: &str) -> bool {
        let its = |pair: &&Pair| pair.key == key && pair.session.as_deref() == Some(session);
        self.members.iter().any(|pair| its(&pair))
    }

    /// Those that are there, but for one.
    fn peers(&self, but: &str) -> Vec<Peer> {
        let replicas = self.members.iter().filter(|pair| pair.key.starts_with(REPLICA));
        let mut peers: Vec<_> =
            replicas.filter_map(peer).filter(|peer| *peer.name != *but).collect();
        peers.sort();
        peers
    }
}

/// What a key of a session that lives says; none: it is not understood.
fn peer(pair: &Pair) -> Option<Peer> {
    pair.session.as_ref()?;
    let member: Member = serde_json::from_slice(&pair.value).ok()?;
    Some(Peer { name: member.name.into(), address: member.mesh })
}

impl Election {
    fn kv(&self) -> Kv {
        Kv::new(self.endpoint.clone(), self.prefix.clone())
    }

    fn name(&self) -> &str {
        &self.control.replica.name
    }

    fn service(&self) -> String {
        let prefix = self.prefix.replace('/', "-");
        format!("weir-control-plane-{prefix}-{}-{:x}", self.name(), self.run)
    }

    fn check(&self) -> String {
        format!("service:{}", self.service())
    }

    /// Takes part until the process stops, then gives the lead up.
    pub async fn run(self: Arc<Self>) {
        let passed = watch::Sender::new(Instant::now());
        let mut tasks = JoinSet::new();
        let passes = passed.subscribe();
        let own = self.clone();
        tasks.spawn(async move { own.pass(passed).await });
        let (own, watched) = (self.clone(), passes.clone());
        tasks.spawn(async move { own.guard(watched).await });
        let current = Arc::new(Mutex::new(None));
        let (own, session) = (self.clone(), current.clone());
        tasks.spawn(async move { own.take_part(passes, &session).await });
        self.control.shutdown.requested().await;
        tasks.shutdown().await;
        let session = current.lock().unwrap_or_else(PoisonError::into_inner).take();
        if tokio::time::timeout(GOODBYE, self.leave(session)).await.is_err() {
            tracing::warn!("the lead was not given up; Consul will find out");
        }
    }

    /// Leads no more. What is being written has still the session that it began with.
    fn step_down(&self) {
        self.session.set(None);
        let led = self.control.replica.lead.send_if_modified(|lead| {
            let led = *lead == Lead::Own;
            if led {
                *lead = Lead::Nobody;
            }
            led
        });
        if led {
            tracing::warn!("this control plane leads no more");
        }
    }

    /// Says again and again that this control plane lives.
    async fn pass(&self, passed: watch::Sender<Instant>) {
        let mut kv = self.kv();
        let path = format!("/v1/agent/check/update/{}", segment(&self.check()));
        let mut tick = tokio::time::interval(PASS);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let sent = Instant::now();
            // An answer that takes longer is no better than none.
            let body = json!({"Status": "passing"});
            let told = tokio::time::timeout(2 * PASS, kv.put(&path, &body)).await;
            match told {
                Ok(Ok(_)) => drop(passed.send_replace(sent)),
                Ok(Err(error)) => tracing::debug!(%error, "Consul does not know that we live"),
                Err(_) => tracing::debug!("Consul is slow to hear that we live"),
            }
        }
    }

    /// Stops leading when Consul may not know any more that we live.
    async fn guard(&self, mut passed: watch::Receiver<Instant>) {
        loop {
            let until = *passed.borrow_and_update() + LEASE;
            tokio::select! {
                () = tokio::time::sleep_until(until) => {
                    self.step_down();
                    if passed.changed().await.is_err() {
                        return;
                    }
                }
                changed = passed.changed() => if changed.is_err() {
                    return;
                }
            }
        }
    }

    async fn take_part(&self, passed: watch::Receiver<Instant>, current: &Mutex<Option<String>>) {
        let mut kv = self.kv();
        let mut told = String::new();
        loop {
            let ended = self.session(&mut kv, &passed, current).await;
            self.step_down();
            if let Err(error) = ended {
                let error = error.to_string();
                if error != told {
                    tracing::warn!(error, "not in touch with the store; trying again");
                    told = error;
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Lives with one session until it ends.
    async fn session(
        &self,
        kv: &mut Kv,
        passed: &watch::Receiver<Instant>,
        current: &Mutex<Option<String>>,
    ) -> Result<(), ConsulError> {
        let earlier = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(session) = earlier {
            kv.put(&format!("/v1/session/destroy/{session}"), &Value::Null).await?;
        }
        kv.put("/v1/agent/service/register?replace-existing-checks", &self.registration()).await?;
        let made = kv.put("/v1/session/create", &self.wanted()).await?;
        let session = made["ID"].as_str().unwrap_or_default().to_owned();
        *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        let own = format!("{REPLICA}{}", self.name());
        let member = Member { name: self.name().to_owned(), mesh: self.address };
        let member: Bytes = serde_json::to_vec(&member).unwrap_or_default().into();
        if !kv.acquire(&own, member.clone(), &session).await? {
            let key = kv.name(&own);
            tracing::warn!(key, "another control plane has this one's name, or had it just now");
            return Ok(());
        }
        let mut index = 0;
        loop {
            let fresh = passed.borrow().elapsed() < LEASE;
            // Without touch nothing may be believed that was known before.
            let (from, wait) = if fresh { (index, WAIT) } else { (0, Duration::ZERO) };
            let asked = kv.changed(MEMBERS, from, wait);
            let (next, members) = tokio::select! {
                answer = asked => answer?,
                () = stale(passed.clone()), if fresh => continue,
            };
            index = next;
            let view = View { members };
            if !view.holds(&own, &session) {
                tracing::warn!("this control plane's session has ended");
                return Ok(());
            }
            self.control.replica.peers.send_if_modified(|peers| {
                let now = view.peers(self.name());
                let changed = *peers != now;
                *peers = now;
                changed
            });
            self.see_lead(kv, &view, &session, &member, passed).await?;
            if !fresh {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn see_lead(
        &self,
        kv: &mut Kv,
        view: &View,
        session: &str,
        member: &Bytes,
        passed: &watch::Receiver<Instant>,
    ) -> Result<(), ConsulError> {
        let ours = match view.lead() {
            Some(lead) if lead.session.as_deref() != Some(session) => {
                self.step_down();
                let other = peer(lead).map_or(Lead::Nobody, Lead::Other);
                self.control.replica.lead.send_if_modified(|lead| {
                    let changed = *lead != other;
                    *lead = other;
                    changed
                });
                return Ok(());
            }
            Some(_) => true,
            None => kv.acquire(LEAD, member.clone(), session).await?,
        };
        if ours && !self.control.replica.leads() {
            self.take_lead(session, passed).await;
        }
        Ok(())
    }

    /// Leads, once all that the one before has made is known.
    async fn take_lead(&self, session: &str, passed: &watch::Receiver<Instant>) {
        let control = self.control.clone();
        let caught_up = tokio::task::spawn_blocking(move || control.catch_up()).await;
        match caught_up {
            Ok(Ok(revision)) => {
                // It may have taken long.
                if passed.borrow().elapsed() < LEASE && !self.control.shutdown.is_requested() {
                    self.session.set(Some(session.to_owned()));
                    self.control.replica.lead.send_replace(Lead::Own);
                    tracing::info!(revision, "this control plane leads");
                    // Whoever watches the time may have looked just before.
                    if passed.borrow().elapsed() >= LEASE {
                        self.step_down();
                    }
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the lead cannot be taken yet"),
            Err(error) => tracing::warn!(%error, "the lead cannot be taken yet"),
        }
    }

    /// Its check, by which its session lives.
    fn registration(&self) -> Value {
        json!({
            "ID": self.service(),
            "Name": "weir-control-plane",
            "Address": self.address.ip().to_string(),
            "Port": self.address.port(),
            "Check": {
                "CheckID": self.check(),
                "Name": "Weir control plane",
                "TTL": format!("{}s", TTL.as_secs()),
                "Status": "passing",
                "DeregisterCriticalServiceAfter": "1m",
            },
        })
    }

    fn wanted(&self) -> Value {
        json!({
            "Name": format!("weir control plane {}", self.name()),
            // Others need not wait: every write shows the session that it leads by.
            "LockDelay": "0s",
            "Behavior": "delete",
            "NodeChecks": ["serfHealth"],
            "ServiceChecks": [{"ID": self.check()}],
        })
    }

    /// Gives up the lead and its place, once nothing is being written.
    async fn leave(&self, session: Option<String>) {
        self.control.replica.lead.send_if_modified(|lead| {
            let led = *lead == Lead::Own;
            if led {
                *lead = Lead::Nobody;
            }
            led
        });
        let control = self.control.clone();
        let nothing_is_written = tokio::task::spawn_blocking(move || {
            drop(control.writing.lock().unwrap_or_else(PoisonError::into_inner));
        });
        let _ = nothing_is_written.await;
        self.session.set(None);
        let mut kv = self.kv();
        if let Some(session) = session {
            let path = format!("/v1/session/destroy/{session}");
            if let Err(error) = kv.put(&path, &Value::Null).await {
                tracing::warn!(%error, "the lead was not given up; Consul will find out");
            }
        }
        let path = format!("/v1/agent/service/deregister/{}", segment(&self.service()));
        let _ = kv.put(&path, &Value::Null).await;
    }
}

/// Waits until nothing was passed for too long.
async fn stale(mut passed: watch::Receiver<Instant>) {
    loop {
        let until = *passed.borrow_and_update() + LEASE;
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            changed = passed.changed() => if changed.is_err() {
                return;
            }
        }
    }
}
