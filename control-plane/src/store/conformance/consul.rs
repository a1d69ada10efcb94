use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::agent::Agent;
use super::{Bench, all, small};
use crate::consul::election::LeadSession;
use crate::consul::{ConsulArgs, Endpoint, Settings};
use crate::store::{ConsulStore, Revision, Store, StoreError};

/// One prefix of a Consul, and a session that leads it.
struct Keys {
    agent: Arc<Agent>,
    prefix: Arc<str>,
    lead: Arc<LeadSession>,
}

fn endpoint(port: u16) -> Arc<Endpoint> {
    let args = ConsulArgs {
        consul: Some(format!("http://127.0.0.1:{port}")),
        consul_tag_prefix: "weir".into(),
        ..ConsulArgs::default()
    };
    Arc::new(Settings::read(&args).unwrap().unwrap().endpoint)
}

impl Keys {
    fn new(agent: &Arc<Agent>, prefix: &str) -> Self {
        let keys = Self {
            agent: agent.clone(),
            prefix: prefix.into(),
            lead: Arc::new(LeadSession::default()),
        };
        keys.take_the_lead();
        keys
    }

    /// Gives the lead to a new session, as if another one had been elected.
    fn take_the_lead(&self) {
        if let Some(old) = self.lead.get() {
            self.agent.json("PUT", &format!("/v1/session/destroy/{old}"), "");
        }
        let wanted = r#"{"LockDelay": "0s", "Behavior": "delete"}"#;
        let made = self.agent.json("PUT", "/v1/session/create", wanted);
        let session = made["ID"].as_str().unwrap().to_owned();
        let path = format!("/v1/kv/{}/members/lead?acquire={session}", self.prefix);
        assert_eq!(self.agent.json("PUT", &path, "me"), true);
        self.lead.set(Some(session));
    }

    fn by(&self, port: u16) -> Result<ConsulStore, StoreError> {
        ConsulStore::open(endpoint(port), self.prefix.clone(), self.lead.clone())
    }

    fn path(&self, key: &str) -> String {
        format!("/v1/kv/{}/{key}", self.prefix)
    }
}

impl Bench for Keys {
    fn open(&self) -> Arc<dyn Store> {
        self.anew().unwrap()
    }

    fn anew(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(self.by(self.agent.port)?))
    }

    fn damage(&self, revision: Revision) {
        let path = self.path(&format!("history/{revision:010}"));
        let (_, mut bytes) = self.agent.call("GET", &format!("{path}?raw"), b"");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        assert_eq!(self.agent.call("PUT", &path, &bytes).0, 200);
    }

    fn remove(&self, revision: Revision) {
        let path = self.path(&format!("history/{revision:010}"));
        assert_eq!(self.agent.call("DELETE", &path, b"").0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_keeps_the_promises_of_a_store() {
    let Some(agent) = Agent::start().map(Arc::new) else { return };
    let mut prefixes = 0;
    all(|| {
        prefixes += 1;
        Keys::new(&agent, &format!("mesh/{prefixes}"))
    });
    foreign_keys_are_named(&Keys::new(&agent, "foreign"));
    who_lost_the_lead_writes_nothing(&Keys::new(&agent, "deposed"));
    a_change_that_was_cut_off_is_not_there(&Keys::new(&agent, "cut"));
    an_answer_that_is_lost_is_asked_for(&Keys::new(&agent, "lost"));
}

fn foreign_keys_are_named(keys: &Keys) {
    keys.agent.call("PUT", &keys.path("history/notes"), b"mine");
    let error = keys.anew().err().unwrap().to_string();
    assert!(error.contains("foreign/history/notes") && error.contains("--store-prefix"), "{error}");
    keys.agent.call("DELETE", &keys.path("history/notes"), b"");
    keys.agent.call("PUT", &keys.path("head"), b"42");
    let error = keys.anew().err().unwrap().to_string();
    assert!(error.contains("key of the head"), "{error}");
    keys.agent.call("PUT", &keys.path("head"), br#"{"format":9,"revision":1,"sha256":""}"#);
    assert!(matches!(keys.anew().err().unwrap(), StoreError::Format { found: 9, .. }));
}

fn who_lost_the_lead_writes_nothing(keys: &Keys) {
    let store = keys.open();
    store.commit(&small(0, 1)).unwrap();
    // Another one leads, and this one has not heard of it.
    let deposed = keys.lead.get();
    keys.take_the_lead();
    let newer = keys.lead.get();
    keys.lead.set(deposed);
    assert!(matches!(store.commit(&small(1, 2)).unwrap_err(), StoreError::NotLeading));
    keys.lead.set(None);
    assert!(matches!(store.commit(&small(1, 2)).unwrap_err(), StoreError::NotLeading));
    keys.lead.set(newer);
    assert_eq!(store.history(None, 10).unwrap().len(), 1);
    assert_eq!(store.commit(&small(1, 2)).unwrap().revision, 2);
}

fn a_change_that_was_cut_off_is_not_there(keys: &Keys) {
    let store = keys.open();
    store.commit(&small(0, 1)).unwrap();
    // Killed between the parts of something large and the transaction.
    keys.agent.call("PUT", &keys.path("blob/00ff/0000"), b"half");
    let store = keys.reopen(store).unwrap();
    assert_eq!(store.load().unwrap().revision, 1);
    assert_eq!(store.commit(&small(1, 2)).unwrap().revision, 2);
}

/// Passes requests on to Consul; of the first transactions it loses the answers.
fn losing(port: u16, transactions: usize, forever: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let lost = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut from), lost) = (stream, lost.clone()) else { return };
            let forever = forever.clone();
            std::thread::spawn(move || {
                let mut to = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let (mut back, mut answers) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let lose = Arc::new(AtomicBool::new(false));
                let loses = lose.clone();
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(n @ 1..) = answers.read(&mut buffer) {
                        // The whole connection goes, once Consul has done it.
                        if loses.load(Ordering::SeqCst) || back.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = back.shutdown(std::net::Shutdown::Both);
                });
                let mut buffer = vec![0; 1 << 20];
                while let Ok(n @ 1..) = from.read(&mut buffer) {
                    if forever.load(Ordering::SeqCst) {
                        break;
                    }
                    if buffer[..n].starts_with(b"PUT /v1/txn")
                        && lost.fetch_add(1, Ordering::SeqCst) < transactions
                    {
                        lose.store(true, Ordering::SeqCst);
                    }
                    if to.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Both);
                let _ = from.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    own
}

fn an_answer_that_is_lost_is_asked_for(keys: &Keys) {
    let gone = Arc::new(AtomicBool::new(false));
    let port = losing(keys.agent.port, 2, gone.clone());
    let store = keys.by(port).unwrap();
    assert_eq!(store.commit(&small(0, 1)).unwrap().revision, 1);
    assert_eq!(store.commit(&small(1, 2)).unwrap().revision, 2);
    assert_eq!(keys.anew().unwrap().history(None, 10).unwrap().len(), 2, "each was made once");
    // What never becomes clear is not called a failure.
    gone.store(true, Ordering::SeqCst);
    assert!(matches!(store.commit(&small(2, 3)).unwrap_err(), StoreError::Unclear(_)));
    gone.store(false, Ordering::SeqCst);
    let now = store.refresh().unwrap();
    assert_eq!(store.commit(&small(now, 4)).unwrap().revision, now + 1);
}
