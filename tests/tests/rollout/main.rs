//! Rollouts through real routers: canaries that are good, slow, failing now and then,
//! failing often, and rarely called, and what becomes of each.

mod server;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use server::Manner;
use weir_tests::{Http, Mesh, weir};

struct Canary {
    /// Its service, too.
    name: &'static str,
    manner: Manner,
    /// Between two requests of each client.
    gap: Duration,
    ends: &'static str,
    /// What its message begins with.
    says: &'static str,
    weights: [i64; 2],
}

const BUSY: Duration = Duration::from_millis(1);
const CLIENTS: usize = 4;

const CANARIES: [Canary; 5] = [
    Canary {
        name: "good",
        manner: Manner::Good,
        gap: BUSY,
        ends: "SUCCEEDED",
        says: "v2 has everything",
        weights: [0, 100],
    },
    Canary {
        name: "slow",
        manner: Manner::Slow(33),
        gap: BUSY,
        ends: "ROLLED_BACK",
        says: "latency-p99: ",
        weights: [100, 0],
    },
    Canary {
        name: "one-percent",
        manner: Manner::Fails(100),
        gap: BUSY,
        ends: "ROLLED_BACK",
        says: "success-rate: 9",
        weights: [100, 0],
    },
    Canary {
        name: "twenty-percent",
        manner: Manner::Fails(5),
        gap: BUSY,
        ends: "ROLLED_BACK",
        says: "success-rate: ",
        weights: [100, 0],
    },
    Canary {
        name: "rarely-called",
        manner: Manner::Good,
        gap: Duration::from_secs(CLIENTS as u64),
        ends: "PAUSED",
        says: "the deadline of 20s has passed; it waited: not enough data: ",
        weights: [50, 50],
    },
];

async fn mesh_file() -> String {
    let (mut services, mut rules) = (String::new(), String::new());
    for canary in &CANARIES {
        let name = canary.name;
        let v1 = server::start(Manner::Good).await;
        let v2 = server::start(canary.manner).await;
        writeln!(
            services,
            "  - name: {name}\n    protocol: http1\n    versions: \
             [{{name: v1, weight: 100, addresses: [\"{v1}\"]}}, \
             {{name: v2, weight: 0, addresses: [\"{v2}\"]}}]"
        )
        .unwrap();
        writeln!(
            rules,
            "        - {{matches: [{{path: {{type: PathPrefix, value: /{name}}}}}], \
             backendRefs: [{{name: {name}, port: 80}}]}}"
        )
        .unwrap();
    }
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: Mesh\nservices:\n{services}routes:\n  \
         - apiVersion: gateway.networking.k8s.io/v1\n    kind: HTTPRoute\n    \
         metadata: {{name: all}}\n    spec:\n      parentRefs: [{{name: gateway}}]\n      \
         rules:\n{rules}"
    )
}

async fn load(http: Http, canary: &'static Canary, stop: Arc<AtomicBool>) {
    let path = format!("/{}", canary.name);
    while !stop.load(Ordering::Relaxed) {
        http.get(&path).send().await;
        tokio::time::sleep(canary.gap).await;
    }
}

/// Waits until nothing more happens to a rollout; gives its status.
async fn ended(api: &Http, name: &str) -> Value {
    let path = format!("/v1/rollouts/{name}-v2");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(150);
    loop {
        let status = api.get(&path).ok().await["status"].clone();
        if status["phase"] != "PROGRESSING" {
            return status;
        }
        assert!(tokio::time::Instant::now() < deadline, "{name} never ends: {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_canaries() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.yaml");
    std::fs::write(&file, mesh_file().await).unwrap();
    let mesh = Mesh::start(weir!(), &["--file", file.to_str().unwrap()]);
    let (api, stop) = (mesh.api(), Arc::new(AtomicBool::new(false)));
    let mut rows = Vec::new();
    // One after the other: a machine that is busy with five is slow at all of them.
    for canary in &CANARIES {
        stop.store(false, Ordering::Relaxed);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| tokio::spawn(load(Http::new(&mesh.gateway), canary, stop.clone())))
            .collect();
        let rare = canary.ends == "PAUSED";
        let document = json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": format!("{}-v2", canary.name)},
            "spec": {
                "service": canary.name,
                "canary": "v2",
                "steps": [{"setWeight": 50}],
                "analysis": {},
                "deadline": if rare { "20s" } else { "2m" },
                "onFailure": if rare { "Pause" } else { "RollBack" },
            },
        });
        let path = directory.path().join(format!("{}.json", canary.name));
        std::fs::write(&path, document.to_string()).unwrap();
        mesh.weir(&["rollout", "start", path.to_str().unwrap()]).ok();
        let status = ended(&api, canary.name).await;
        assert_eq!(status["phase"], canary.ends, "{}: {status}", canary.name);
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with(canary.says), "{}: {message}", canary.name);
        let service = api.get(&format!("/v1/services/{}", canary.name)).ok().await;
        let weights = [&service["versions"][0]["weight"], &service["versions"][1]["weight"]];
        assert_eq!(weights, canary.weights.map(|weight| json!(weight)).each_ref());
        let seconds = status["elapsedMs"].as_str().map_or_else(
            || status["elapsedMs"].as_f64().unwrap_or_default(),
            |text| text.parse().unwrap(),
        ) / 1000.0;
        rows.push(format!("{:<16} {:<12} {seconds:>6.1} s  {message}", canary.name, canary.ends));
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.abort();
        }
    }
    println!("{:<16} {:<12} {:>8}  why", "canary", "verdict", "after");
    rows.iter().for_each(|row| println!("{row}"));
    let verified = api.get("/v1/history/verify").ok().await;
    assert_eq!(verified["ok"], true, "{verified}");
}
