//! Control planes in one process, on one store, with the lead given by hand: what
//! they tell each other, and where writes go.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use weir_mesh::identity::{ALPN_H2, Secret, SpiffeId, TrustBundle, client_config, connect_tls};
use weir_mesh::shutdown::Shutdown;
use weir_proto::weir::control::v1 as control_pb;
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::mesh_service_client::MeshServiceClient;
use weir_proto::weir::mesh::v1::peer_service_client::PeerServiceClient;
use weir_proto::weir::mesh::v1::watch_request::Message as Said;
use weir_proto::weir::mesh::v1::watch_response::Message as Told;

use super::{Lead, Peer, Replica};
use crate::app::{Config, Listeners, Parts, Running, serve_parts};
use crate::ca::{Authority, JoinTokens};
use crate::consul::ConsulArgs;
use crate::registry::{Presence, Registry};
use crate::store::{Commit, Desired, Embedded, Entry, ObjectKey, Revision, Store, StoreError};

const VIEWER: &str = "a-token-of-one-who-looks";
const TOKEN: &str = "a-token-of-these-tests";

/// One store that several control planes use.
struct Shared(Embedded, watch::Sender<Revision>);

impl Store for Shared {
    fn load(&self) -> Result<Desired, StoreError> {
        self.0.load()
    }
    fn commit(&self, commit: &Commit) -> Result<Entry, StoreError> {
        let entry = self.0.commit(commit)?;
        self.1.send_replace(entry.revision);
        Ok(entry)
    }
    fn history(&self, of: Option<&ObjectKey>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.0.history(of, limit)
    }
    fn last_change(&self, of: &ObjectKey, revision: Revision) -> Result<Option<Entry>, StoreError> {
        self.0.last_change(of, revision)
    }
    fn reserve(&self, count: u64) -> Result<Range<u64>, StoreError> {
        self.0.reserve(count)
    }
    fn follow(&self) -> Option<watch::Receiver<Revision>> {
        Some(self.1.subscribe())
    }
}

struct Mesh {
    dir: tempfile::TempDir,
    store: Arc<Shared>,
}

impl Mesh {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(&dir.path().join("weir.redb")).unwrap();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, VIEWER.as_bytes());
        let hash = crate::text::hex(hash.as_ref());
        let access = format!("tokens: [{{name: vera, sha256: {hash}, role: viewer}}]");
        std::fs::write(dir.path().join("access.yaml"), access).unwrap();
        Self { store: Arc::new(Shared(store, watch::Sender::new(0))), dir }
    }

    async fn replica(&self, name: &str) -> Running {
        let data = self.dir.path().join(name);
        std::fs::create_dir_all(&data).unwrap();
        let mut config = config(&data);
        config.access.access = Some(self.dir.path().join("access.yaml"));
        let listeners = Listeners::bind(&config).await.unwrap();
        let ca = self.dir.path().join("ca");
        let parts = Parts {
            trust_domain: "weir.local".into(),
            desired: self.store.load().unwrap(),
            store: self.store.clone(),
            registry: Registry::default(),
            authority: Authority::open(&ca, "weir.local", Duration::from_secs(3600)).unwrap(),
            join_tokens: JoinTokens::open(None).unwrap(),
            consul: None,
            attest: None,
            resources: None,
            replica: Arc::new(Replica::among(name.into(), Some(listeners.mesh().unwrap()))),
            shutdown: Shutdown::new(),
        };
        let id = SpiffeId::control_plane("weir.local").unwrap();
        serve_parts(&config, parts, listeners, Secret::new(TOKEN.to_owned()), id).await.unwrap()
    }

    /// Two that know each other; the first leads.
    async fn pair(&self) -> (Running, Running) {
        let (a, b) = (self.replica("a").await, self.replica("b").await);
        a.control.replica.peers.send_replace(vec![peer(&b)]);
        b.control.replica.peers.send_replace(vec![peer(&a)]);
        a.control.replica.lead.send_replace(Lead::Own);
        b.control.replica.lead.send_replace(Lead::Other(peer(&a)));
        for replica in [&a, &b] {
            let mut settled = replica.control.replica.settled.subscribe();
            let settled = settled.wait_for(|settled| *settled);
            tokio::time::timeout(Duration::from_secs(10), settled).await.unwrap().unwrap();
        }
        (a, b)
    }
}

fn config(data: &Path) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        data: data.to_owned(),
        api_listen: any,
        write_back_secret: None,
        mesh_listen: any,
        otlp_listen: any,
        token_file: data.join("token"),
        join_tokens: None,
        trust_domain: "weir.local".into(),
        certificate_lifetime: Duration::from_secs(3600),
        consul: ConsulArgs::default(),
        access: crate::access::AccessArgs::default(),
        store: crate::consul::StoreArgs::default(),
    }
}

fn peer(of: &Running) -> Peer {
    Peer { name: of.control.replica.name.clone(), address: of.mesh }
}

/// Has the second lead after the first.
fn hand_over(from: &Running, to: &Running) {
    from.control.replica.lead.send_replace(Lead::Other(peer(to)));
    to.control.replica.lead.send_replace(Lead::Own);
}

async fn http(of: &Running, method: &str, path: &str, body: Value) -> (u16, Value) {
    http_as(TOKEN, of, method, path, body).await
}

async fn http_as(token: &str, of: &Running, method: &str, path: &str, body: Value) -> (u16, Value) {
    http_with(&[("authorization", &format!("Bearer {token}"))], of, method, path, body).await
}

async fn http_with(
    headers: &[(&str, &str)],
    of: &Running,
    method: &str,
    path: &str,
    body: Value,
) -> (u16, Value) {
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", of.api))
        .header("x-weir-actor", "eve")
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<bytes::Bytes>::from(body)).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn products(v1: u32, v2: u32) -> Value {
    json!({"services": [{"name": "products", "protocol": "PROTOCOL_GRPC",
        "versions": [{"version": "v1", "weight": v1}, {"version": "v2", "weight": v2}]}]})
}

async fn channel(of: &Running, id: &SpiffeId) -> tonic::transport::Channel {
    let authority = &of.control.authority;
    let svid = authority.issue_own(id).unwrap();
    let bundle = TrustBundle::from_der(&*authority.bundle()).unwrap();
    let own = SpiffeId::control_plane("weir.local").unwrap();
    let tls = client_config(&svid, &bundle, &own, ALPN_H2).unwrap();
    let endpoint = tonic::transport::Endpoint::from_static("http://control-plane");
    endpoint.connect_with_connector(connect_tls(of.mesh, tls)).await.unwrap()
}

/// A router that applies whatever it gets.
struct Router {
    say: mpsc::Sender<pb::WatchRequest>,
    snapshot: watch::Receiver<pb::Snapshot>,
    task: tokio::task::JoinHandle<tonic::Status>,
}

fn hello(id: &str, opened: u64) -> pb::Hello {
    pb::Hello {
        router_id: id.into(),
        role: pb::hello::Role::Sidecar.into(),
        instance: Some(pb::Instance {
            id: format!("{id}-app"),
            service: "products".into(),
            version: "v1".into(),
            address: "127.0.0.1:1001".into(),
            healthy: true,
            ..Default::default()
        }),
        service: "products".into(),
        opened,
        ..Default::default()
    }
}

impl Router {
    async fn connect(to: &Running, hello: pb::Hello) -> Self {
        let id = SpiffeId::of_service("weir.local", "products").unwrap();
        let mut client = MeshServiceClient::new(channel(to, &id).await);
        let (say, said) = mpsc::channel(16);
        let first = pb::WatchRequest { message: Some(Said::Hello(hello)) };
        say.send(first).await.unwrap();
        let (seen, snapshot) = watch::channel(pb::Snapshot::default());
        let answers = say.clone();
        let task = tokio::spawn(async move {
            let mut stream = match client.watch(ReceiverStream::new(said)).await {
                Ok(stream) => stream.into_inner(),
                Err(status) => return status,
            };
            loop {
                match stream.message().await {
                    Err(status) => return status,
                    Ok(None) => return tonic::Status::ok(""),
                    Ok(Some(message)) => {
                        let Some(Told::Snapshot(bytes)) = message.message else { continue };
                        let snapshot = pb::Snapshot::decode(bytes).unwrap();
                        let sequence = snapshot.sequence;
                        seen.send_replace(snapshot);
                        let applied = Said::Applied(pb::Applied { sequence, apply_micros: 7 });
                        let _ = answers.send(pb::WatchRequest { message: Some(applied) }).await;
                    }
                }
            }
        });
        Self { say, snapshot, task }
    }

    async fn sees(&mut self, wanted: impl Fn(&pb::Snapshot) -> bool) -> pb::Snapshot {
        let seen = self.snapshot.wait_for(|snapshot| wanted(snapshot));
        let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
        seen.expect("never seen").unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_any_replica_is_made_by_the_leader_in_the_callers_name() {
    let mesh = Mesh::new();
    let (a, b) = mesh.pair().await;
    let (status, made) = http(&b, "POST", "/v1/apply", products(100, 0)).await;
    assert_eq!((status, &made["revision"]), (200, &json!(1)), "{made}");
    // What the caller got wrong is told as if the leader had been asked.
    let (status, wrong) = http(&b, "POST", "/v1/services/nope/shift", json!({})).await;
    assert_eq!((status, &wrong["status"]), (404, &json!("NOT_FOUND")), "{wrong}");
    let history = eventually("the follower has it", async || {
        let (_, history) = http(&b, "GET", "/v1/history", Value::Null).await;
        history["entries"][0]["revision"].is_u64().then_some(history)
    })
    .await;
    assert_eq!(history["entries"][0]["actor"], "admin on behalf of eve", "{history}");
    eventually("the follower shows it", async || {
        (b.control.desired.borrow().revision == 1).then_some(())
    })
    .await;
    hand_over(&a, &b);
    let shift = json!({"weights": {"v1": 1, "v2": 1}, "allowEmpty": true});
    let (status, made) = http(&a, "POST", "/v1/services/products/shift", shift).await;
    assert_eq!((status, &made["revision"]), (200, &json!(2)), "{made}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_at_any_replica_is_the_leaders_to_make_and_to_write_down() {
    let mesh = Mesh::new();
    let (a, b) = mesh.pair().await;
    assert_eq!(http(&a, "POST", "/v1/apply", products(100, 0)).await.0, 200);
    for replica in [&a, &b] {
        let path = "/v1/services/products/shift";
        let (status, answer) = http_as(VIEWER, replica, "POST", path, json!({})).await;
        assert_eq!(status, 403, "{answer}");
        let entries = mesh.store.history(None, 10).unwrap();
        assert_eq!(
            (entries[0].action.as_str(), entries[0].actor.as_str()),
            ("refused", "vera on behalf of eve")
        );
    }
    assert_eq!(mesh.store.history(None, 10).unwrap().len(), 3);
    assert_eq!(mesh.store.newest().unwrap().newest_change, 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_for_a_leader_and_then_is_made_once() {
    let mesh = Mesh::new();
    let (a, b) = mesh.pair().await;
    a.control.replica.lead.send_replace(Lead::Nobody);
    b.control.replica.lead.send_replace(Lead::Nobody);
    let late = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        b.control.replica.lead.send_replace(Lead::Own);
        // Not told yet who leads: it must not be sent to itself for ever.
        a.control.replica.lead.send_replace(Lead::Other(peer(&b)));
    };
    let write = http(&a, "POST", "/v1/apply", products(100, 0));
    let ((status, made), ()) = tokio::join!(write, late);
    assert_eq!((status, &made["revision"]), (200, &json!(1)), "{made}");
    // One that believes that another leads, which does not: nothing happens, and it waits.
    a.control.replica.lead.send_replace(Lead::Other(peer(&b)));
    b.control.replica.lead.send_replace(Lead::Nobody);
    let again = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        a.control.replica.lead.send_replace(Lead::Own);
    };
    let write = http(&a, "POST", "/v1/apply", products(50, 50));
    let ((status, made), ()) = tokio::join!(write, again);
    assert_eq!((status, &made["revision"]), (200, &json!(2)), "{made}");
    assert_eq!(mesh.store.history(None, 10).unwrap().len(), 2);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_header_makes_a_retry_safe_at_any_replica() {
    let mesh = Mesh::new();
    let (a, b) = mesh.pair().await;
    assert_eq!(http(&a, "POST", "/v1/apply", products(100, 0)).await.0, 200);
    let shift = |v2: u32, at| {
        let token = format!("Bearer {TOKEN}");
        async move {
            let headers = [("authorization", token.as_str()), ("idempotency-key", "\"k-1\"")];
            let body = json!({"weights": {"v1": 9, "v2": v2}, "allowEmpty": true});
            http_with(&headers, at, "POST", "/v1/services/products/shift", body).await
        }
    };
    let (status, made) = shift(1, &b).await;
    assert_eq!((status, &made["revision"]), (200, &json!(2)), "{made}");
    // Somebody changes it since: a retry must not undo that.
    assert_eq!(http(&a, "POST", "/v1/apply", products(50, 50)).await.0, 200);
    for replica in [&b, &a] {
        let (status, again) = shift(1, replica).await;
        assert_eq!((status, &again["revision"]), (200, &json!(2)), "{again}");
        let (status, other) = shift(2, replica).await;
        assert_ne!(status, 200, "another request by the same key: {other}");
    }
    assert_eq!(mesh.store.newest().unwrap().newest_change, 3);
    assert_eq!(mesh.store.history(None, 1).unwrap()[0].idempotency, None);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_of_all_replicas_are_known_to_each_and_awaited() {
    let mesh = Mesh::new();
    let (a, b) = mesh.pair().await;
    http(&a, "POST", "/v1/apply", products(100, 0)).await;
    let mut at_b = Router::connect(&b, hello("p1", 1)).await;
    at_b.sees(|s| s.revision == 1 && s.instances.len() == 1).await;
    eventually("the other replica has its instance", async || {
        (a.control.registry.instances().len() == 1).then_some(())
    })
    .await;
    let shift = json!({"weights": {"v1": 9, "v2": 1}, "allowEmpty": true, "wait": true});
    let (status, made) = http(&a, "POST", "/v1/services/products/shift", shift.clone()).await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(made["converged"]["applied"], 1, "{made}");
    at_b.sees(|s| s.revision == 2).await;
    // What it reports counts everywhere.
    let edge = pb::Edge {
        source: "products".into(),
        destination: "products".into(),
        version: "v1".into(),
        requests: 7,
        ..Default::default()
    };
    let report = Said::Report(pb::Report { edges: vec![edge] });
    at_b.say.send(pb::WatchRequest { message: Some(report) }).await.unwrap();
    eventually("the other replica counts it", async || {
        a.control.edges.list().iter().any(|edge| edge.requests == 7).then_some(())
    })
    .await;
    let (_, replicas) = http(&a, "GET", "/v1/replicas", Value::Null).await;
    let other = &replicas["replicas"][1];
    assert_eq!((&other["name"], &other["inTouch"]), (&json!("b"), &json!(true)), "{replicas}");
    assert_eq!(other["routers"], 1, "{replicas}");
    // Its control plane dies: it is expected back, and its instance stays meanwhile.
    at_b.task.abort();
    b.stop().await;
    eventually("its replica is lost", async || {
        let routers = a.control.registry.routers();
        (routers[0].presence != Presence::Connected).then_some(())
    })
    .await;
    assert_eq!(a.control.registry.instances().len(), 1);
    let back = pb::Hello { revision: 2, sequence: 999_999, ..hello("p1", 2) };
    let mut at_a = Router::connect(&a, back).await;
    at_a.sees(|s| s.revision == 2).await;
    let routers = a.control.registry.routers();
    assert_eq!((routers.len(), routers[0].remote.is_none()), (1, true));
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_moves_has_one_slot_and_the_newest_stream_counts() {
    let mesh = Mesh::new();
    let (a, b) = mesh.pair().await;
    http(&a, "POST", "/v1/apply", products(100, 0)).await;
    let mut first = Router::connect(&a, hello("p1", 10)).await;
    first.sees(|s| s.revision == 1).await;
    // The old stream is still open at `a`: it is told to end.
    let mut second = Router::connect(&b, hello("p1", 20)).await;
    second.sees(|s| s.revision == 1).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), first.task).await.unwrap().unwrap();
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
    eventually("both say the same", async || {
        let (at_a, at_b) = (a.control.registry.routers(), b.control.registry.routers());
        let one = at_a.len() == 1 && at_b.len() == 1;
        (one && at_a[0].remote.is_some() && at_b[0].remote.is_none()).then_some(())
    })
    .await;
    // Back again, by a clock that went backwards.
    let mut third = Router::connect(&a, hello("p1", 5)).await;
    third.sees(|s| s.revision == 1).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), second.task).await.unwrap().unwrap();
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
    assert!(!third.task.is_finished());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_is_sent_nothing_older_than_it_runs() {
    let mesh = Mesh::new();
    let (a, b) = mesh.pair().await;
    http(&a, "POST", "/v1/apply", products(100, 0)).await;
    let ahead = pb::Hello { revision: 2, sequence: 99_999, ..hello("p1", 1) };
    let mut router = Router::connect(&b, ahead).await;
    eventually("it is registered", async || {
        (b.control.registry.routers().len() == 1 && b.control.desired.borrow().revision == 1)
            .then_some(())
    })
    .await;
    let shift = json!({"weights": {"v1": 9, "v2": 1}, "allowEmpty": true, "wait": true});
    let (_, made) = http(&a, "POST", "/v1/services/products/shift", shift).await;
    assert_eq!(made["converged"]["applied"], 1, "{made}");
    let seen = router.sees(|s| s.sequence > 0).await;
    assert_eq!(seen.revision, 2, "the first that it got is the newest");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_control_planes_follow_and_forward() {
    use weir_proto::weir::control::v1::control_service_client::ControlServiceClient;
    let mesh = Mesh::new();
    let (a, b) = mesh.pair().await;
    let router = SpiffeId::of_service("weir.local", "products").unwrap();
    let mut follow = PeerServiceClient::new(channel(&a, &router).await);
    let refused = follow.follow(pb::FollowRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let forged = |mut request: tonic::Request<control_pb::DeleteRouteRequest>| {
        let caller = r#"{"name":"eve","method":"token","role":"admin"}"#;
        request.metadata_mut().insert("x-weir-caller", caller.parse().unwrap());
        request
    };
    let request = || forged(tonic::Request::new(control_pb::DeleteRouteRequest::default()));
    let mut client = ControlServiceClient::new(channel(&a, &router).await);
    let refused = client.delete_route(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // A control plane may: then the leader says what there is to say.
    let own = SpiffeId::control_plane("weir.local").unwrap();
    let mut client = ControlServiceClient::new(channel(&a, &own).await);
    assert_eq!(client.delete_route(request()).await.unwrap_err().code(), Code::NotFound);
    let reads = client.get_mesh(control_pb::GetMeshRequest::default()).await.unwrap_err();
    assert_eq!(reads.code(), Code::Unimplemented);
    let nobody = tonic::Request::new(control_pb::DeleteRouteRequest::default());
    assert_eq!(client.delete_route(nobody).await.unwrap_err().code(), Code::Unauthenticated);
    a.stop().await;
    b.stop().await;
}
