//! What a BackendTrafficPolicy is worth: a mesh with three instances of a
//! service, one fault after the other at one of them, without a policy and with
//! one. Prints a table.
//!
//! ```sh
//! cargo run -p weir-tests --example faults
//! ```

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::{Http, Mesh};

#[path = "../tests/resilience/server.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod server;

use server::{Manner, Server};

/// Clients that ask one request after the other.
const CLIENTS: usize = 12;
/// Of one row's load; what happens in its course happens after a third.
const LOAD: Duration = Duration::from_secs(3);
/// What a good instance takes.
const USUAL: Duration = Duration::from_millis(5);
const FAULTS: [(&str, &str); 6] = [
    ("none", "nothing is wrong"),
    ("killed", "an instance ends after 1 s"),
    ("hangs", "an instance answers nothing after 1 s"),
    ("half", "an instance answers 503 to half"),
    ("slow", "an instance takes ten times as long"),
    ("refused", "an instance refuses connections"),
];

struct Row {
    requests: usize,
    good: usize,
    times: Vec<Duration>,
    tries: u64,
    bad: u64,
}

fn main() -> ExitCode {
    // `weir up` starts its own program for each part of the mesh: this one.
    if std::env::args().nth(1).is_some() {
        return weir_cli::main();
    }
    let program = std::env::current_exe().expect("the path of this program");
    let program = program.to_str().expect("a path in UTF-8").to_owned();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(table(program));
    ExitCode::SUCCESS
}

async fn table(program: String) {
    let policy = json!({
        "outlierDetection": {
            "consecutiveErrors": 5, "baseEjectionTime": "30s", "interval": "500ms",
            "successRate": {"minRequests": 20, "thresholdPercent": 80},
        },
        "retry": {"attempts": 2, "perTryTimeout": "200ms"},
        "hedging": {"delay": "50ms"},
    });
    println!(
        "{CLIENTS} clients, 3 instances of {USUAL:?}, route timeout 1 s; the policy:\n{policy}\n"
    );
    println!(
        "{:<38} {:<7} {:>9} {:>9} {:>9} {:>9} {:>11} {:>11}",
        "fault", "policy", "requests", "good", "p50 ms", "p99 ms", "tries/req.", "at the bad"
    );
    for (fault, words) in FAULTS {
        for with in [false, true] {
            let row = measure(&program, fault, with.then(|| policy.clone())).await;
            println!("{}", line(words, with, row));
        }
    }
}

fn line(words: &str, with: bool, mut row: Row) -> String {
    row.times.sort_unstable();
    let at = |share: usize| {
        let time = row.times.get((row.times.len() * share / 100).min(row.times.len().max(1) - 1));
        time.map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    let (requests, tries) = (row.requests as f64, row.tries as f64);
    format!(
        "{words:<38} {:<7} {:>9} {:>8.2}% {:>9.1} {:>9.1} {:>11.3} {:>10.1}%",
        if with { "with" } else { "without" },
        row.requests,
        100.0 * row.good as f64 / requests,
        at(50),
        at(99),
        tries / requests,
        100.0 * row.bad as f64 / tries,
    )
}

async fn measure(program: &str, fault: &str, policy: Option<serde_json::Value>) -> Row {
    let mut servers: Vec<_> =
        (1..=3).map(|i| Some(Server::start(&format!("web-{i}"), false))).collect();
    let states: Vec<_> = servers.iter().flatten().map(|server| server.state.clone()).collect();
    let addresses: Vec<_> = servers.iter().flatten().map(|s| s.address.to_string()).collect();
    states.iter().for_each(|state| state.set(Manner::Slow(USUAL)));
    match fault {
        "half" => states[0].set(Manner::Half(503)),
        "slow" => states[0].set(Manner::Slow(10 * USUAL)),
        "refused" => drop(servers[0].take()),
        _ => {}
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mesh.yaml");
    fs::write(&file, document(&addresses, policy)).expect("a file");
    let mesh = Mesh::start(program.to_owned(), &["--file", &file.to_string_lossy()]);
    let gateway = mesh.gateway.clone();
    let began = Instant::now();
    let clients = (0..CLIENTS).map(|_| {
        let http = Http::new(&gateway);
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while began.elapsed() < LOAD {
                let asked = Instant::now();
                let status = http.get("/").try_send().await.map(|reply| reply.status.as_u16());
                seen.push((status.is_ok_and(|status| status == 200), asked.elapsed()));
            }
            seen
        })
    });
    let clients: Vec<_> = clients.collect();
    tokio::time::sleep(LOAD / 3).await;
    match fault {
        "killed" => drop(servers[0].take()),
        "hangs" => states[0].set(Manner::Hangs),
        _ => {}
    }
    let mut row = Row { requests: 0, good: 0, times: Vec::new(), tries: 0, bad: 0 };
    for client in clients {
        for (good, took) in client.await.expect("a client") {
            row.requests += 1;
            row.good += usize::from(good);
            row.times.push(took);
        }
    }
    row.tries = states.iter().map(|state| state.requests.load(SeqCst)).sum();
    row.bad = states[0].requests.load(SeqCst);
    row
}

fn document(addresses: &[String], policy: Option<serde_json::Value>) -> String {
    let mut text = format!(
        "apiVersion: weir.dev/v1alpha1\nkind: Mesh\nservices:\n  - name: web\n    \
         protocol: http1\n    versions: [{{name: v1, addresses: {}}}]\n",
        json!(addresses)
    );
    if let Some(mut spec) = policy {
        spec["targetRefs"] = json!([{"kind": "Service", "name": "web"}]);
        let policy = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "BackendTrafficPolicy",
            "metadata": {"name": "web"}, "spec": spec,
        });
        let _ = writeln!(text, "policies:\n  - {policy}");
    }
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "all"},
        "spec": {
            "parentRefs": [{"name": "gateway"}],
            "rules": [{
                "timeouts": {"request": "1s"}, "backendRefs": [{"name": "web", "port": 80}],
            }],
        },
    });
    let _ = writeln!(text, "routes:\n  - {route}");
    text
}
