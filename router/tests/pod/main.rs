//! Routers in pods of Kubernetes, from outside: real processes in network namespaces
//! whose connections the kernel redirects.

// Helpers of tests are tests too, which the lint cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod inbound;
mod outbound;
mod plane;
mod tls;
mod world;

use std::path::Path;
use std::process::{Command, Stdio};

use plane::{Plane, identity};
use serde_json::{Value, json};
use weir_mesh::policy::value::to_struct;
use weir_proto::weir::mesh::v1 as pb;
use world::{Pod, connect, eventually, get, must};

/// Set for the run inside of the node's namespace.
const INSIDE: &str = "WEIR_TEST_INSIDE_NODE";

#[test]
fn a_pod() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(inside());
    }
    let rules = ["-n", "nft", "add", "table", "ip", "trial"];
    let quiet = || Stdio::null();
    let tried = Command::new("unshare").args(rules).stdout(quiet()).stderr(quiet()).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no right to make a network namespace, or no nft in it");
        return;
    }
    let output = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_pod", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

/// The control plane, and a node with three pods in the mesh and one that is not.
pub struct World {
    /// The control plane.
    pub plane: Plane,
    /// `shop/client`, which serves on 8080 as well.
    pub client: Pod,
    /// Service account `shop/server`.
    pub server: Pod,
    /// Service account `shop/other`.
    pub other: Pod,
    /// Without a router.
    pub plain: Pod,
}

/// Routers, by their ids.
pub const ROUTERS: [&str; 3] = ["shop/client", "shop/server-1", "shop/server-2"];

async fn inside() {
    must("ip", "link set lo up");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(directory.path()).await;
    outbound::test(&world).await;
    tls::test(&world).await;
    inbound::test(world).await;
}

impl World {
    async fn start(directory: &Path) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory, all).unwrap();
        // Where another user can run it.
        let binary = directory.join("weir-router");
        std::fs::hard_link(env!("CARGO_BIN_EXE_weir-router"), &binary)
            .or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_weir-router"), &binary).map(drop))
            .unwrap();
        let [mut client, mut server, mut other, plain] =
            [1, 2, 3, 4].map(|number| Pod::new(number, directory));
        let plane = Plane::start("0.0.0.0:0", directory).await;
        let control =
            |pod: &Pod| format!("10.99.{}.1:{}", pod.number, plane.address.port()).parse().unwrap();
        for pod in [&client, &server, &other] {
            pod.redirect();
        }
        let at = control(&client);
        client.router(ROUTERS[0], "shop/client", at, &[]);
        let at = control(&server);
        server.router(ROUTERS[1], "shop/server", at, &["--probes", "8080/healthz"]);
        let at = control(&other);
        other.router(ROUTERS[2], "shop/other", at, &["--opaque-ports", "9000"]);
        world::http_app(client.listen(8080), "client");
        world::http_app(server.listen(8080), "server");
        world::http_app(server.listen(9999), "hidden");
        world::tcp_app(server.listen(5432), "db");
        world::http_app(other.listen(8080), "other");
        world::tcp_app(other.listen(9000), "opaque");
        world::http_app(plain.listen(8080), "plain");
        world::tcp_app(plain.listen(25), "mail");
        let world = Self { plane, client, server, other, plain };
        world.publish(|_| {}).await;
        for pod in [&world.client, &world.server, &world.other] {
            let ready = || async { pod.admin("/ready").contains("200").then_some(()) };
            eventually("the router is ready", ready).await;
        }
        world
    }

    /// Publishes the snapshot, changed.
    pub async fn publish(&self, change: impl FnOnce(&mut pb::Snapshot)) {
        let mut snapshot = self.snapshot();
        change(&mut snapshot);
        self.plane.publish(snapshot, &ROUTERS).await;
    }

    fn snapshot(&self) -> pb::Snapshot {
        let (http, tcp) = (pb::Protocol::Http1, pb::Protocol::Tcp);
        let (server, other) = (self.server.ip(), self.other.ip());
        let meshed = |service: &str, id: &str, ip: &str, port: u16| {
            let account = if ip == server { "shop/server" } else { "shop/other" };
            let account = if ip == self.client.ip() { "shop/client" } else { account };
            instance(service, id, &format!("{ip}:{port}"), Some(account))
        };
        let mail = instance("mail.out", "out/mail", &self.plain.at(25), None);
        let web = instance("plain.out", "out/plain", &self.plain.at(8080), None);
        let mut both = service("both.shop", http, &["10.96.0.2:80"]);
        both.versions.push(pb::VersionWeight { version: "v2".into(), ..both.versions[0].clone() });
        let mut newer = meshed("both.shop", "shop/server-2", &other, 8080);
        newer.version = "v2".into();
        pb::Snapshot {
            services: vec![
                service("web.shop", http, &["10.96.0.1:80"]),
                both,
                service("second.shop", http, &["10.96.0.3:80"]),
                service("db.shop", tcp, &["10.96.0.4:5432"]),
                service("headless.shop", http, &[]),
                service("plain.out", http, &["10.96.0.5:80"]),
                service("mail.out", tcp, &["10.96.0.6:25"]),
                service("client.shop", http, &["10.96.0.7:80"]),
                service("tls.shop", http, &["10.96.0.9:443"]),
                service("slow.shop", http, &["10.96.0.8:80"]),
                service("client.shop:81", http, &["10.96.0.7:81"]),
            ],
            instances: vec![
                meshed("web.shop", "shop/server-1", &server, 8080),
                meshed("both.shop", "shop/server-1", &server, 8080),
                newer,
                meshed("second.shop", "shop/server-1", &server, 8080),
                meshed("db.shop", "shop/server-1", &server, 5432),
                meshed("headless.shop", "shop/server-2", &other, 8080),
                meshed("tls.shop", "shop/server-1", &server, 8443),
                meshed("slow.shop", "shop/server-2", &other, 8090),
                web,
                mail,
                meshed("client.shop", "shop/client", &self.client.ip(), 8080),
                meshed("client.shop:81", "shop/server-2", &other, 8080),
            ],
            options: Some(pb::Options {
                egress: Some(pb::Egress { allow_by_default: true, hosts: vec![] }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

impl Pod {
    /// What the router's admin listener answers the node.
    pub fn admin(&self, path: &str) -> String {
        get(connect(&self.at(15020)).unwrap(), "x", path)
    }
}

fn service(name: &str, protocol: pb::Protocol, addresses: &[&str]) -> pb::Service {
    let version = pb::VersionWeight { version: "v1".into(), weight: 1, addresses: vec![] };
    pb::Service {
        name: name.into(),
        protocol: protocol.into(),
        versions: vec![version],
        virtual_addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        ..Default::default()
    }
}

fn instance(service: &str, id: &str, address: &str, account: Option<&str>) -> pb::Instance {
    pb::Instance {
        id: id.into(),
        service: service.into(),
        version: "v1".into(),
        address: address.into(),
        healthy: true,
        plain: account.is_none(),
        identity: account.map(identity).unwrap_or_default(),
        ..Default::default()
    }
}

/// A policy of a service.
pub fn policy(kind: &str, name: &str, service: &str, mut spec: Value) -> pb::Policy {
    spec["targetRefs"] = json!([{"kind": "Service", "name": service}]);
    pb::Policy { kind: kind.into(), name: name.into(), spec: Some(to_struct(&spec)) }
}
