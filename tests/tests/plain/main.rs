//! Instances that have no router: reached in plaintext, by the gateway and by
//! sidecars, and routed like any other. One mesh serves all tests; no two use
//! the same service.

mod server;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::sync::OnceLock;

use http::Method;
use serde_json::{Value, json};
use server::{Manner, Server};
use weir_tests::{Http, Mesh, Reply, eventually, weir};

const FILE: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
gateway: {showVersion: true}
services:
  - name: web
    protocol: http1
    versions:
      - {name: v1, weight: 90, addresses: [{web-1}, {web-2}]}
      - {name: v2, weight: 10, addresses: [{web-3}]}
  - name: fragile
    protocol: http1
    versions: [{name: v1, addresses: [{fragile-1}, {fragile-2}, {fragile-3}]}]
  - name: odd
    protocol: http1
    versions: [{name: v1, addresses: [{odd-1}]}]
  - name: broken
    protocol: http1
    versions: [{name: v1, addresses: [{broken-1}, {broken-2}]}]
  - name: echo
    protocol: grpc
    sticky: {header: x-user}
    versions:
      - {name: v1, weight: 50, addresses: [{echo-1}]}
      - {name: v2, weight: 50, addresses: [{echo-2}]}
  - name: caller
    protocol: grpc
    versions: [{name: v1, builtin: users}]
routes:
  - apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {name: all}
    spec:
      parentRefs: [{name: gateway}]
      rules:
        - matches: [{path: {type: PathPrefix, value: /web}}]
          backendRefs: [{name: web, port: 80}]
        - matches: [{path: {type: PathPrefix, value: /fragile}}]
          backendRefs: [{name: fragile, port: 80}]
        - matches: [{path: {type: PathPrefix, value: /odd}}]
          timeouts: {request: 1s}
          backendRefs: [{name: odd, port: 80}]
        - matches: [{path: {type: PathPrefix, value: /broken}}]
          backendRefs: [{name: broken, port: 80}]
        - matches: [{path: {type: PathPrefix, value: /echo.v1.Echo}}]
          backendRefs: [{name: echo, port: 80}]
"#;

struct World {
    mesh: Mesh,
    servers: std::sync::Mutex<BTreeMap<&'static str, Server>>,
}

/// The mesh, and a router's outbound listener inside it.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let servers = BTreeMap::from([
            ("web-1", Server::start(Manner::Http1, "v1")),
            ("web-2", Server::start(Manner::Http1, "v1")),
            ("web-3", Server::start(Manner::Http1, "v2")),
            ("fragile-1", Server::start(Manner::Http1, "fragile-1")),
            ("fragile-2", Server::start(Manner::Http1, "fragile-2")),
            ("fragile-3", Server::start(Manner::Http1, "fragile-3")),
            ("odd-1", Server::start(Manner::Http1, "v1")),
            ("broken-1", Server::start(Manner::HangsUp, "v1")),
            ("broken-2", Server::start(Manner::Http1, "v1")),
            ("echo-1", Server::start(Manner::Grpc, "v1")),
            ("echo-2", Server::start(Manner::Grpc, "v2")),
        ]);
        let mut text = FILE.to_owned();
        for (name, server) in &servers {
            text = text.replace(&format!("{{{name}}}"), &format!("\"{}\"", server.address));
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mesh.yaml");
        fs::write(&file, text).unwrap();
        let mesh = Mesh::start(weir!(), &["--file", file.to_str().unwrap()]);
        World { mesh, servers: servers.into() }
    })
}

fn mesh() -> &'static Mesh {
    &world().mesh
}

/// The gateway and a sidecar's outbound listener, by HTTP/1.1 and HTTP/2.
fn doors(service: &str) -> [(&'static str, Http); 4] {
    let outbound = mesh().process("caller-v1-1-router").outbound.unwrap();
    let sidecar = Http::new(&format!("http://{outbound}")).with_header("host", service);
    [
        ("gateway, HTTP/1.1", Http::new(&mesh().gateway)),
        ("gateway, HTTP/2", Http::http2(&mesh().gateway)),
        ("sidecar, HTTP/1.1", sidecar),
        ("sidecar, HTTP/2", Http::http2_via(&format!("http://{service}"), outbound)),
    ]
}

#[track_caller]
fn good(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

async fn shift_web(weights: Value) {
    let body = json!({"weights": weights, "wait": true});
    let answer = mesh().api().post("/v1/services/web/shift", &body).ok().await;
    assert_eq!(answer["converged"]["applied"], answer["converged"]["routers"], "{answer}");
}

#[tokio::test]
async fn a_split_is_exact_and_a_shift_moves_weights_alone() {
    let addresses = || async {
        let service = mesh().api().get("/v1/services/web").ok().await;
        let versions = service["versions"].as_array().unwrap().iter();
        versions.map(|version| version["addresses"].clone()).collect::<Vec<_>>()
    };
    let before = addresses().await;
    assert_eq!((before[0].as_array().unwrap().len(), before[1].as_array().unwrap().len()), (2, 1));
    for (v1, v2) in [(90, 10), (50, 50), (0, 1), (1, 0), (90, 10)] {
        shift_web(json!({"v1": v1, "v2": v2})).await;
        assert_eq!(addresses().await, before);
        for (door, http) in doors("web") {
            let mut found = 0;
            for _ in 0..100 {
                let reply = http.get("/web").send().await;
                let json = good(&reply);
                if door.starts_with("gateway") {
                    assert_eq!(json["version"], reply.header("x-weir-version"));
                }
                found += usize::from(json["version"] == "v2");
            }
            let wanted = 100 * v2 / (v1 + v2);
            assert!(found.abs_diff(wanted) <= 2, "{door}, {v1}:{v2}: {found} went to v2");
        }
    }
    mesh().weir(&["rollback", "web", "--wait"]).ok();
    assert_eq!(addresses().await, before);
}

#[tokio::test]
async fn a_process_that_dies_takes_no_request_with_it() {
    let seen = |http: Http| async move {
        let mut seen = Vec::new();
        for _ in 0..60 {
            let json = good(&http.get("/fragile").send().await);
            seen.push(json["version"].as_str().unwrap().to_owned());
        }
        seen
    };
    let mut before = Vec::new();
    for (_, http) in doors("fragile") {
        before.extend(seen(http).await);
    }
    // The one that routers have connections to, whichever they found quickest.
    let busiest = *["fragile-1", "fragile-2", "fragile-3"]
        .iter()
        .max_by_key(|name| before.iter().filter(|seen| seen == *name).count())
        .unwrap();
    let dead = world().servers.lock().unwrap().remove(busiest);
    drop(dead);
    for (door, http) in doors("fragile") {
        let seen = seen(http).await;
        assert!(!seen.iter().any(|name| name == busiest), "{door}: {seen:?}");
    }
}

#[tokio::test]
async fn what_belongs_to_one_connection_stays_there() {
    for (door, http) in doors("odd") {
        let request = http.call(Method::POST, "/odd/a?b=c").body("some text");
        let request = request.header("x-forwarded-client-cert", "URI=spiffe://weir.local/liar");
        let reply = request.header("x-kept", "1").send().await;
        let json = good(&reply);
        assert_eq!(json["body"], "some text", "{door}");
        assert_eq!(reply.header("x-public"), "yes", "{door}");
        for gone in ["x-private", "keep-alive", "proxy-connection", "connection"] {
            assert!(!reply.headers.contains_key(gone), "{door}: {gone} leaks: {:?}", reply.headers);
        }
        if door.ends_with("HTTP/2") {
            assert!(!reply.headers.contains_key("transfer-encoding"), "{door}");
        }

        let head: Vec<_> =
            json["head"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        assert_eq!(head[0], "POST /odd/a?b=c HTTP/1.1", "{door}");
        let values = |name: &str| {
            let pairs = head[1..].iter().filter_map(|line| line.split_once(':'));
            let of = pairs.filter(|(found, _)| found.eq_ignore_ascii_case(name));
            of.map(|(_, value)| value.trim()).collect::<Vec<_>>()
        };
        let asked = match door.starts_with("gateway") {
            true => mesh().gateway.trim_start_matches("http://"),
            false => "odd",
        };
        assert_eq!(values("host"), [asked], "{door}: {head:?}");
        assert_eq!(values("x-kept"), ["1"], "{door}");
        assert!(values("x-forwarded-client-cert").is_empty(), "{door}: {head:?}");
        assert_eq!(values("traceparent").len(), 1, "{door}");
    }
}

#[tokio::test]
async fn an_http_1_0_server_is_no_reason_to_hang_up_on_a_client() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for (door, http) in doors("odd") {
        assert_eq!(good(&http.get("/odd/1.0").send().await)["version"], "v1", "{door}");
    }
    let gateway = mesh().gateway.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(gateway).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /odd/1.0 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"0\r\n\r\n") {
            let read = stream.read_buf(&mut answer).await.unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn deadlines_hold() {
    for http in [Http::new, Http::http2] {
        let reply = http(&mesh().gateway).get("/odd/slow").send().await;
        assert_eq!(reply.status, 504, "{}", reply.text());
    }
}

#[tokio::test]
async fn only_what_may_be_sent_twice_is() {
    for (door, http) in doors("broken") {
        for _ in 0..20 {
            let reply = http.get("/broken").send().await;
            assert_eq!(reply.status, 200, "{door}: {}", reply.text());
        }
        // Not known to be harmless: what became of it is told, not tried again.
        eventually("a POST meets the one that hangs up", || async {
            let reply = http.call(Method::POST, "/broken").body("once").send().await;
            assert!([200, 503].contains(&reply.status.as_u16()), "{door}: {}", reply.text());
            (reply.status == 503).then_some(())
        })
        .await;
    }
}

async fn say(http: &Http, user: &str) -> Reply {
    let call = http.call(Method::POST, "/echo.v1.Echo/Say").body(&b"\0\0\0\0\x05hello"[..]);
    call.header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-user", user)
        .header("x-forwarded-client-cert", "URI=spiffe://weir.local/liar")
        .send()
        .await
}

#[tokio::test]
async fn grpc_goes_through_with_its_trailers_and_users_stay() {
    let mut places: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    for (door, http) in doors("echo").into_iter().filter(|(door, _)| door.ends_with("HTTP/2")) {
        for number in 0..40 {
            let user = format!("user-{}", number % 10);
            let reply = say(&http, &user).await;
            assert_eq!((reply.status.as_u16(), &*reply.body), (200, &b"\0\0\0\0\x05hello"[..]));
            assert_eq!(reply.trailers["grpc-status"], "0", "{door}: a claim of identity came in");
            places.entry(user).or_default().insert(reply.header("x-version").to_owned());
        }
    }
    assert!(places.values().all(|versions| versions.len() == 1), "{places:?}");
    let used: HashSet<_> = places.values().flatten().collect();
    assert_eq!(used.len(), 2, "{places:?}");
}

#[tokio::test]
async fn grpc_to_http1_says_what_is_wrong() {
    for (door, http) in doors("odd").into_iter().filter(|(door, _)| door.ends_with("HTTP/2")) {
        let call = http.call(Method::POST, "/odd/Say").body(&b"\0\0\0\0\0"[..]);
        let reply = call.header("content-type", "application/grpc").send().await;
        assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "12"), "{door}");
        assert!(reply.header("grpc-message").contains("gRPC needs HTTP/2"), "{door}");
    }
}

#[tokio::test]
async fn they_are_listed_and_marked() {
    let listed = mesh().weir(&["get", "instances", "-o", "json"]).json();
    let all = listed["instances"].as_array().unwrap().clone();
    let plain: Vec<_> = all.iter().filter(|instance| instance["plain"] == true).collect();
    // Others may come while this runs.
    let of_file = plain.iter().filter(|instance| instance["service"] != "guest").count();
    assert_eq!((all.len() - plain.len(), of_file), (1, 11), "{listed}");
    for instance in plain {
        let text = |key: &str| instance[key].as_str().unwrap();
        let id = format!("{}-{}@{}", text("service"), text("version"), text("address"));
        assert_eq!((text("id"), &instance["healthy"]), (&*id, &json!(true)));
    }
    let table = mesh().weir(&["get", "instances"]).ok();
    let line = |start: &str| table.lines().find(|line| line.trim_start().starts_with(start));
    assert!(line("echo-v1@127.0.0.1").unwrap().contains(" plain "), "{table}");
    assert!(line("caller-v1-1").unwrap().contains(" mTLS "), "{table}");

    // `weir up` started nothing for them.
    let apps = mesh().processes().into_iter().filter(|process| process.role == "app");
    assert_eq!(apps.map(|app| app.name).collect::<Vec<_>>(), ["caller-v1-1"]);
}

#[tokio::test]
async fn a_file_that_is_applied_moves_them() {
    let new = Server::start(Manner::Grpc, "moved");
    let text = format!(
        "apiVersion: weir.dev/v1alpha1\nkind: Mesh\ngateway: {{showVersion: true}}\nservices:\n  \
         - name: guest\n    protocol: grpc\n    \
         versions: [{{name: v1, addresses: [\"{}\"]}}]\n",
        new.address
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("guest.yaml");
    let file = file.to_str().unwrap();
    fs::write(file, &text).unwrap();
    mesh().weir(&["apply", "-f", file, "--wait"]).ok();
    let [.., (_, http)] = doors("guest");
    assert_eq!(say(&http, "ann").await.header("x-version"), "moved");

    fs::write(file, text.replace(&new.address.to_string(), "0.0.0.0:80")).unwrap();
    let error = mesh().weir(&["apply", "-f", file]).failed();
    let wanted = "guest.yaml:7:39: services[0].versions[0].addresses[0]: 0.0.0.0:80 cannot be";
    assert!(error.contains(wanted), "{error}");
    assert_eq!(say(&http, "ann").await.header("x-version"), "moved", "nothing has changed");
}
