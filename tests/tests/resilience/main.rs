//! BackendTrafficPolicy on real traffic: routers as processes, and servers that
//! fail on command. One mesh serves all tests; no two use the same service.

mod balance;
mod breaker;
mod deadline;
mod failover;
mod health;
mod limits;
mod retries;
mod server;
mod shed;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};
use server::{Server, State};
use weir_tests::{Http, Mesh, Reply, weir};

/// One service: its name, its protocol, how many instances it has, its policy.
type Service = (&'static str, &'static str, usize, Value);

fn services() -> Vec<Service> {
    [
        balance::services(),
        breaker::services(),
        deadline::services(),
        failover::services(),
        health::services(),
        limits::services(),
        retries::services(),
    ]
    .concat()
}

struct World {
    mesh: Mesh,
    states: BTreeMap<&'static str, Vec<Arc<State>>>,
    servers: Mutex<BTreeMap<&'static str, Vec<Option<Server>>>>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let (mut servers, mut states) = (BTreeMap::new(), BTreeMap::new());
        let (mut listed, mut policies, mut rules) = (String::new(), String::new(), String::new());
        for (name, protocol, count, policy) in services() {
            let is_http2 = protocol != "http1";
            let started: Vec<_> =
                (1..=count).map(|i| Server::start(&format!("{name}-{i}"), is_http2)).collect();
            let addresses: Vec<_> = started.iter().map(|s| s.address.to_string()).collect();
            let addresses = json!(addresses);
            write!(
                listed,
                "  - name: {name}\n    protocol: {protocol}\n    \
                 versions: [{{name: v1, addresses: {addresses}}}]\n"
            )
            .unwrap();
            if !policy.is_null() {
                let mut spec = policy;
                spec["targetRefs"] = json!([{"kind": "Service", "name": name}]);
                let policy = json!({
                    "apiVersion": "weir.dev/v1alpha1", "kind": "BackendTrafficPolicy",
                    "metadata": {"name": name}, "spec": spec,
                });
                writeln!(policies, "  - {policy}").unwrap();
            }
            let timeout = match name {
                "by-route" | "beside-ill" => "retry: {codes: [500], attempts: 3, backoff: 1ms}, ",
                "by-route-late" => {
                    "retry: {attempts: 1, backoff: 1ms}, timeouts: {backendRequest: 150ms}, "
                }
                late if late.starts_with("late") => "timeouts: {request: 400ms}, ",
                _ => "",
            };
            writeln!(
                rules,
                "        - {{matches: [{{path: {{type: PathPrefix, value: /{name}}}}}], {timeout}\
                 backendRefs: [{{name: {name}, port: 80}}]}}"
            )
            .unwrap();
            states.insert(name, started.iter().map(|s| s.state.clone()).collect());
            servers.insert(name, started.into_iter().map(Some).collect());
        }
        // Behind a router: checked through mTLS.
        for (name, asks) in [("behind", ""), ("behind-other", "no.such.Service")] {
            writeln!(
                listed,
                "  - name: {name}\n    protocol: grpc\n    versions: [{{name: v1, builtin: notifications}}]"
            )
            .unwrap();
            let policy = json!({
                "apiVersion": "weir.dev/v1alpha1", "kind": "BackendTrafficPolicy",
                "metadata": {"name": name},
                "spec": {
                    "targetRefs": [{"kind": "Service", "name": name}],
                    "healthCheck": {"type": "GRPC", "interval": "200ms", "grpcService": asks},
                },
            });
            writeln!(policies, "  - {policy}").unwrap();
        }
        let walled = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "walled"},
            "spec": {
                "targetRefs": [{"kind": "Service", "name": "walled"}],
                "action": "Deny", "rules": [{}],
            },
        });
        writeln!(policies, "  - {walled}").unwrap();
        let text = format!(
            "apiVersion: weir.dev/v1alpha1\nkind: Mesh\nservices:\n{listed}policies:\n{policies}\
             routes:\n  - apiVersion: gateway.networking.k8s.io/v1\n    kind: HTTPRoute\n    \
             metadata: {{name: all}}\n    spec:\n      parentRefs: [{{name: gateway}}]\n      \
             rules:\n{rules}"
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mesh.yaml");
        fs::write(&file, text).unwrap();
        let mesh = Mesh::start(weir!(), &["--file", file.to_str().unwrap()]);
        World { mesh, states, servers: Mutex::new(servers) }
    })
}

/// What the servers of a service have seen, in their order.
fn states(service: &str) -> Vec<Arc<State>> {
    world().states[service].clone()
}

/// Ends one server: nothing listens there any more.
fn kill(service: &str, index: usize) {
    let server = world().servers.lock().unwrap().get_mut(service).unwrap()[index].take();
    drop(server);
}

/// The gateway, by HTTP/1.1.
fn http() -> Http {
    Http::new(&world().mesh.gateway)
}

/// The server that answered.
#[track_caller]
fn server_of(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.header("x-server").to_owned()
}

/// One GET after the other; who answered.
async fn ask(path: &str, times: usize) -> Vec<String> {
    let http = http();
    let mut seen = Vec::new();
    for _ in 0..times {
        seen.push(server_of(&http.get(path).send().await));
    }
    seen
}

/// GETs at the same time; their answers.
async fn at_once(path: &'static str, times: usize) -> Vec<Reply> {
    let asking = (0..times).map(|_| tokio::spawn(async move { http().get(path).send().await }));
    let mut replies = Vec::new();
    for one in asking.collect::<Vec<_>>() {
        replies.push(one.await.unwrap());
    }
    replies
}

/// The sum of a metric's series whose labels have all of these.
async fn metric(name: &str, labels: &[&str]) -> f64 {
    let text = world().mesh.admin("gateway").get("/metrics").send().await.text();
    let series = text.lines().filter_map(|line| line.rsplit_once(' '));
    let of = series.filter(|(series, _)| {
        series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
    });
    of.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

/// The line of the access log for the newest request to a path, once it is there.
async fn logged(path: &str) -> Value {
    weir_tests::eventually("the access log has it", || async {
        let lines = world().mesh.access_log();
        let of = lines.into_iter().filter(|(router, l)| router == "gateway" && l["path"] == path);
        of.map(|(_, line)| line).next_back()
    })
    .await
}
