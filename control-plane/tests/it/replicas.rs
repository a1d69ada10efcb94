//! Control planes as processes, on one store in a real Consul: whoever is killed,
//! nothing that was acknowledged is lost and nobody's request fails.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_mesh::identity::{Svid, TrustBundle};

use crate::plane::{JOIN_TOKENS, eventually, mesh};
use crate::router::{Door, Manner, Router, csr, hello};

#[path = "consul/agent.rs"]
#[allow(dead_code, reason = "the crate's own tests need more of it")]
mod agent;

use agent::Agent;

const CHILD: &str = "WEIR_TEST_CONTROL_PLANE_ARGS";
const TOKEN: &str = "a-token-of-these-tests";

/// A control plane that can be killed and started again.
struct Replica {
    name: String,
    args: String,
    ready: PathBuf,
    child: Option<tokio::process::Child>,
    api: SocketAddr,
    mesh: SocketAddr,
}

impl Replica {
    async fn start(dir: &Path, consul: &str, name: &str, more: &str) -> Self {
        let data = dir.join(name);
        std::fs::create_dir_all(&data).unwrap();
        let file = |name: &str| dir.join(name).display().to_string();
        let args = format!(
            "--data {} --join-tokens {} --token-file {} --store consul --consul {consul} \
             --store-key-file {} --replica {name} --log-level debug {more}",
            data.display(),
            file("join.json"),
            file("token"),
            file("store.key"),
        );
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let ready = data.join("ready.json");
        let mut replica =
            Self { name: name.to_owned(), args, ready, child: None, api: any, mesh: any };
        replica.up().await;
        replica
    }

    /// Starts it, again at the addresses that it had.
    async fn up(&mut self) {
        let _ = std::fs::remove_file(&self.ready);
        let args = format!(
            "{} --ready-file {} --api-listen {} --mesh-listen {}",
            self.args,
            self.ready.display(),
            self.api,
            self.mesh
        );
        let log = self.ready.with_file_name("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::child", "--nocapture"])
            .env(CHILD, args)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        let ready: Value = loop {
            let text = std::fs::read_to_string(&self.ready).unwrap_or_default();
            if let Ok(ready) = serde_json::from_str(&text) {
                break ready;
            }
            let log = self.ready.with_file_name("log");
            let told = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(Instant::now() < deadline, "{} does not start:\n{}", self.name, told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let address = |name: &str| ready[name].as_str().unwrap().parse().unwrap();
        (self.api, self.mesh) = (address("api"), address("mesh"));
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id().unwrap()
    }

    /// `kill -9`.
    async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    /// As somebody would stop it.
    async fn terminate(&mut self) {
        let pid = self.pid().to_string();
        let told = std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(told.success());
        let status = self.child.take().unwrap().wait().await.unwrap();
        assert!(status.success(), "{status}");
    }
}

/// None: nobody answers there.
async fn http(api: SocketAddr, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    http_as(TOKEN, api, method, path, body).await
}

async fn http_as(
    token: &str,
    api: SocketAddr,
    method: &str,
    path: &str,
    body: &Value,
) -> Option<(u16, Value)> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://{api}{path}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::<bytes::Bytes>::from(body))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, serde_json::from_slice(&body).ok()?))
}

async fn get(api: SocketAddr, path: &str) -> Option<Value> {
    let (status, body) = http(api, "GET", path, &Value::Null).await?;
    (status == 200).then_some(body)
}

/// The name of the one that leads, in the words of whoever is asked.
async fn leader(api: SocketAddr) -> Option<String> {
    let replicas = get(api, "/v1/replicas").await?;
    let leads = |replica: &&Value| replica["leads"] == true;
    let found = replicas["replicas"].as_array()?.iter().find(leads)?;
    Some(found["name"].as_str()?.to_owned())
}

struct World {
    _consul: Agent,
    dir: tempfile::TempDir,
    replicas: Vec<Replica>,
}

impl World {
    async fn start(count: usize) -> Option<Self> {
        let consul = tokio::task::block_in_place(Agent::start)?;
        Some(Self::on(consul, count, |_| String::new()).await)
    }

    /// On this Consul; with options that depend on a directory.
    async fn on(consul: Agent, count: usize, more: impl Fn(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let more = more(dir.path());
        std::fs::write(dir.path().join("join.json"), JOIN_TOKENS).unwrap();
        std::fs::write(dir.path().join("token"), TOKEN).unwrap();
        let mut replicas = Vec::new();
        for i in 0..count {
            replicas
                .push(Replica::start(dir.path(), &consul.url(), &format!("cp{i}"), &more).await);
        }
        let world = Self { _consul: consul, dir, replicas };
        world.whole().await;
        world
    }

    /// Waits until everyone is in touch with everyone, and all name one leader.
    async fn whole(&self) {
        for replica in &self.replicas {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let replicas = get(replica.api, "/v1/replicas").await.unwrap_or_default();
                let all = replicas["replicas"].as_array().cloned().unwrap_or_default();
                let well = |r: &&Value| r["inTouch"] == true;
                let leads = all.iter().filter(|r| r["leads"] == true).count();
                if all.iter().filter(well).count() == self.replicas.len() && leads == 1 {
                    break;
                }
                if Instant::now() >= deadline {
                    panic!("{}: {replicas}\n{}", replica.name, self.logs());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// The ends of all logs.
    fn logs(&self) -> String {
        let log = |replica: &Replica| {
            let log = std::fs::read_to_string(replica.ready.with_file_name("log"));
            let log = log.unwrap_or_default();
            let lines: Vec<_> = log.lines().filter(|line| !line.contains("published")).collect();
            format!(
                "--- {}\n{}\n",
                replica.name,
                lines[lines.len().saturating_sub(60)..].join("\n")
            )
        };
        self.replicas.iter().map(log).collect()
    }

    async fn leader(&self) -> usize {
        let name = eventually("somebody leads", async || leader(self.replicas[0].api).await).await;
        self.replicas.iter().position(|replica| replica.name == name).unwrap()
    }

    fn doors(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| replica.mesh).collect()
    }

    fn apis(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| replica.api).collect()
    }

    /// The mesh's roots, as routers are given them.
    fn bundle(&self) -> TrustBundle {
        TrustBundle::load(self.dir.path().join("cp0/ca/bundle.pem")).unwrap()
    }
}

/// A router that goes to another control plane whenever its own is gone.
struct Roaming {
    /// The newest revision that it has, and how often it was sent an older one.
    seen: watch::Receiver<(u32, u32)>,
    task: tokio::task::JoinHandle<()>,
}

impl Roaming {
    async fn start(id: &str, port: u16, world: &World) -> Self {
        let (doors, bundle) = (world.doors(), world.bundle());
        let key = KeyPair::generate().unwrap();
        let door = Door { address: doors[0], bundle: bundle.clone() };
        let signed = door.sign("products", "join-products", csr(&key)).await.unwrap();
        let svid = Svid::from_der(signed.certificate_chain, key.serialize_der()).unwrap();
        let (tell, seen) = watch::channel((0, 0));
        let mut hello = hello(id, "products", "v1", port);
        let task = tokio::spawn(async move {
            let mut turn = usize::from(port);
            loop {
                turn += 1;
                let address = doors[turn % doors.len()];
                if tokio::net::TcpStream::connect(address).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                let door = Door { address, bundle: bundle.clone() };
                let now = std::time::SystemTime::now();
                let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
                hello.opened = u64::try_from(now).unwrap();
                hello.revision = tell.borrow().0;
                let (svid, hello) = (svid.clone(), hello.clone());
                // A control plane that is killed at just this moment panics there.
                let with = async move { Router::with(&door, &svid, hello, Manner::Applies).await };
                let Ok(mut router) = tokio::spawn(with).await else { continue };
                let seen = &tell;
                while router.snapshot.changed().await.is_ok() {
                    let new = router.snapshot.borrow_and_update().revision;
                    seen.send_modify(|(newest, older)| {
                        *older += u32::from(new < *newest);
                        *newest = new.max(*newest);
                    });
                }
            }
        });
        Self { seen, task }
    }
}

impl Drop for Roaming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Somebody who shifts all the time, through every control plane in turn.
struct Writer {
    apis: Vec<SocketAddr>,
    written: i32,
    /// By reason: the revision that was acknowledged.
    acknowledged: Vec<(String, u64)>,
    slowest: Duration,
}

impl Writer {
    /// One shift, with an idempotency key. A control plane that does not answer at all
    /// is left for another one, as a client would; one that answers must not fail.
    async fn shift(&mut self) {
        self.written += 1;
        let reason = format!("shift-{}", self.written);
        let body = json!({
            "weights": {"v1": self.written, "v2": 1}, "allowEmpty": true,
            "reason": reason, "idempotencyKey": reason,
        });
        let began = Instant::now();
        for turn in 0.. {
            assert!(began.elapsed() < Duration::from_secs(60), "{reason}: nobody answers");
            let api = self.apis[(usize::try_from(self.written).unwrap() + turn) % self.apis.len()];
            let answer = http(api, "POST", "/v1/services/products/shift", &body).await;
            let Some((status, answer)) = answer else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // One that is told to stop may say so: nothing was changed then.
            if status == 503 && answer["message"].as_str().unwrap().contains("nothing was changed")
            {
                continue;
            }
            assert_eq!(status, 200, "{reason} by {api}: {answer}");
            self.acknowledged.push((reason, answer["revision"].as_u64().unwrap()));
            break;
        }
        self.slowest = self.slowest.max(began.elapsed());
    }

    /// Every acknowledged change is in the history, once, and that is one chain.
    async fn check(&self, api: SocketAddr) {
        let last = self.acknowledged.last().unwrap().1;
        let history = eventually("the history is there", async || {
            let history = get(api, "/v1/history?limit=1000").await?;
            (history["entries"][0]["revision"].as_u64()? >= last).then_some(history)
        })
        .await;
        let entries = history["entries"].as_array().unwrap();
        for pair in entries.windows(2) {
            assert_eq!(pair[0]["previousHash"], pair[1]["hash"]);
            assert_eq!(pair[0]["revision"].as_u64(), pair[1]["revision"].as_u64().map(|r| r + 1));
        }
        for (reason, revision) in &self.acknowledged {
            let made: Vec<_> = entries.iter().filter(|e| e["reason"] == **reason).collect();
            assert_eq!(made.len(), 1, "{reason} was acknowledged as revision {revision}: {made:?}");
            assert_eq!(made[0]["revision"].as_u64(), Some(*revision), "{reason}");
        }
    }
}

async fn seed(world: &World) -> Writer {
    let apis = world.apis();
    let (status, made) = http(apis[1], "POST", "/v1/apply", &mesh()).await.unwrap();
    assert_eq!(status, 200, "{made}");
    Writer { apis, written: 0, acknowledged: Vec::new(), slowest: Duration::ZERO }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_leader_at_any_moment_loses_nothing_and_fails_nobody() {
    const KILLS: u32 = 10;
    let Some(mut world) = World::start(3).await else { return };
    let mut writer = seed(&world).await;
    let routers = [
        Roaming::start("p1", 1001, &world).await,
        Roaming::start("p2", 1002, &world).await,
        Roaming::start("p3", 1003, &world).await,
    ];
    let mut gaps = Vec::new();
    for kill in 0..KILLS {
        for _ in 0..5 {
            writer.shift().await;
        }
        let leader = world.leader().await;
        // At some moment of a shift, which differs from kill to kill.
        let moment = Duration::from_micros(u64::from(kill) * 1700);
        let victim = &mut world.replicas[leader];
        let killed = async {
            tokio::time::sleep(moment).await;
            victim.kill().await;
            Instant::now()
        };
        let many = async {
            for _ in 0..3 {
                writer.shift().await;
            }
            Instant::now()
        };
        let (killed, written) = tokio::join!(killed, many);
        gaps.push(written.saturating_duration_since(killed));
        world.replicas[leader].up().await;
        world.whole().await;
    }
    let newest = u32::try_from(writer.acknowledged.last().unwrap().1).unwrap();
    for router in &routers {
        let mut seen = router.seen.clone();
        let reached = seen.wait_for(|(revision, _)| *revision >= newest);
        tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap().unwrap();
        assert_eq!(router.seen.borrow().1, 0, "a router was sent what is older than it had");
    }
    for replica in &world.replicas {
        writer.check(replica.api).await;
    }
    let body = json!({"weights": {"v1": 1, "v2": 0}, "allowEmpty": true, "wait": true});
    let api = world.replicas[0].api;
    let (_, made) = http(api, "POST", "/v1/services/products/shift", &body).await.unwrap();
    assert_eq!(made["converged"]["applied"], 3, "{made}");
    println!("from a kill to the next three shifts: {gaps:?}; slowest {:?}", writer.slowest);
    assert!(world.dir.path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_stop_hands_over_at_once() {
    let Some(mut world) = World::start(2).await else { return };
    let mut writer = seed(&world).await;
    writer.shift().await;
    let leader = world.leader().await;
    let other = world.replicas[1 - leader].api;
    let began = Instant::now();
    let name = world.replicas[1 - leader].name.clone();
    let taken = async {
        eventually("the other leads", async || (self::leader(other).await? == name).then_some(()))
            .await;
        println!("handed over in {:?}", began.elapsed());
    };
    tokio::join!(world.replicas[leader].terminate(), taken);
    writer.apis = vec![other];
    writer.shift().await;
    writer.check(other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_changes_nothing_when_it_wakes() {
    let Some(world) = World::start(2).await else { return };
    let mut writer = seed(&world).await;
    writer.shift().await;
    let leader = world.leader().await;
    let signal = |name: &str| {
        let pid = world.replicas[leader].pid().to_string();
        let told = std::process::Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(told.success());
    };
    signal("-STOP");
    let other = &world.replicas[1 - leader];
    eventually("the other leads", async || {
        (self::leader(other.api).await? == other.name).then_some(())
    })
    .await;
    writer.apis = vec![other.api];
    writer.shift().await;
    writer.shift().await;
    signal("-CONT");
    // It still may believe that it leads: what it is asked now goes on the one chain.
    writer.apis = vec![world.replicas[leader].api];
    for _ in 0..10 {
        writer.shift().await;
    }
    world.whole().await;
    for replica in &world.replicas {
        writer.check(replica.api).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_has_refusals_written_and_roots_changed_everywhere() {
    const VIEWER: &str = "a-token-that-may-look-only";
    let Some(consul) = tokio::task::block_in_place(Agent::start) else { return };
    let world = World::on(consul, 2, |dir| {
        use aws_lc_rs::digest::{SHA256, digest};
        let hash = digest(&SHA256, VIEWER.as_bytes());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let file = dir.join("access.yaml");
        let text = format!("tokens: [{{name: viewer-1, sha256: {hash}, role: viewer}}]\n");
        std::fs::write(&file, text).unwrap();
        format!("--access {}", file.display())
    })
    .await;
    let mut writer = seed(&world).await;
    let follower = &world.replicas[1 - world.leader().await];
    let shift = json!({"weights": {"v1": 1}});
    let path = "/v1/services/products/shift";
    let refused = http_as(VIEWER, follower.api, "POST", path, &shift).await.unwrap();
    assert_eq!(refused.0, 403, "{refused:?}");
    eventually("the refusal is in the history", async || {
        let history = get(follower.api, "/v1/history").await?;
        let newest = &history["entries"][0];
        (newest["action"] == "refused" && newest["actor"] == "viewer-1").then_some(())
    })
    .await;
    writer.shift().await;
    // One router at each: the new root must have reached both before it signs.
    let routers =
        [Roaming::start("p1", 1001, &world).await, Roaming::start("p2", 1002, &world).await];
    for router in &routers {
        let mut seen = router.seen.clone();
        let reached = seen.wait_for(|(revision, _)| *revision > 0);
        tokio::time::timeout(Duration::from_secs(20), reached).await.unwrap().unwrap();
    }
    let rotate = json!({"newRoot": true, "reason": "drill"});
    let (status, rotated) =
        http(follower.api, "POST", "/v1/certificates/rotate", &rotate).await.unwrap();
    assert_eq!((status, &rotated["routers"]), (200, &json!(2)), "{rotated}");
    for replica in &world.replicas {
        eventually("everyone trusts both roots", async || {
            let snapshot = get(replica.api, "/v1/snapshot").await?;
            (snapshot["trustBundle"].as_array()?.len() == 2).then_some(())
        })
        .await;
    }
    world.whole().await;
    writer.shift().await;
    writer.check(follower.api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_policy_is_all_that_it_needs() {
    const MANAGEMENT: &str = "11111111-2222-3333-4444-555555555555";
    let Some(consul) = tokio::task::block_in_place(|| Agent::with_acls(MANAGEMENT)) else { return };
    let docs = include_str!("../../../docs/src/high-availability.md");
    let rules = docs.split("```hcl\n").nth(1).unwrap().split("```").next().unwrap();
    let policy = json!({"Name": "weir", "Rules": rules}).to_string();
    consul.json("PUT", "/v1/acl/policy", &policy);
    let token = json!({"Policies": [{"Name": "weir"}]}).to_string();
    let token =
        consul.json("PUT", "/v1/acl/token", &token)["SecretID"].as_str().unwrap().to_owned();
    let mut world = World::on(consul, 2, |dir| {
        let file = dir.join("consul.token");
        std::fs::write(&file, &token).unwrap();
        format!("--consul-token-file {}", file.display())
    })
    .await;
    let mut writer = seed(&world).await;
    writer.shift().await;
    let leader = world.leader().await;
    world.replicas[leader].kill().await;
    writer.shift().await;
    writer.check(world.replicas[1 - leader].api).await;
}
