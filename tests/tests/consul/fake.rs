//! What Consul answers when it is ill: a server that answers whatever a test says.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use weir_tests::{eventually, never};

use crate::app::App;
use crate::world::{mesh, route, service, shares, status_says};

#[derive(Clone)]
struct Answers {
    index: u64,
    status: u16,
    leader: bool,
    catalogue: Bytes,
    health: Bytes,
}

struct Fake {
    url: String,
    answers: Arc<watch::Sender<Answers>>,
    /// The queries for `web`.
    asked: Arc<Mutex<Vec<String>>>,
}

fn listed(apps: &[&App]) -> (Bytes, Bytes) {
    let entries = apps.iter().map(|app| {
        json!({
            "Node": {"Node": "n", "Address": "127.0.0.1"},
            "Service": {"ID": app.address.to_string(), "Port": app.address.port(), "Tags": ["weir"]},
            "Checks": [{"Status": "passing"}],
        })
    });
    let catalogue = match apps {
        [] => json!({}),
        _ => json!({"web": ["weir"]}),
    };
    (catalogue.to_string().into(), Value::from_iter(entries).to_string().into())
}

impl Fake {
    async fn start(apps: &[&App]) -> Self {
        let (catalogue, health) = listed(apps);
        let answers = Answers { index: 100, status: 200, leader: true, catalogue, health };
        let answers = Arc::new(watch::Sender::new(answers));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (shown, log) = (answers.clone(), asked.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shown, log) = (shown.clone(), log.clone());
                tokio::spawn(async move {
                    let answer = service_fn(|request: Request<Incoming>| {
                        answer(request, shown.subscribe(), log.clone())
                    });
                    let io = TokioIo::new(stream);
                    // A client that hangs up is no failure.
                    let _ = http1::Builder::new().serve_connection(io, answer).await;
                });
            }
        });
        Self { url, answers, asked }
    }

    fn say(&self, change: impl FnOnce(&mut Answers)) {
        self.answers.send_modify(change);
    }

    fn list(&self, index: u64, apps: &[&App]) {
        let (catalogue, health) = listed(apps);
        self.say(|answers| *answers = Answers { index, catalogue, health, ..answers.clone() });
    }
}

async fn answer(
    request: Request<Incoming>,
    mut answers: watch::Receiver<Answers>,
    log: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let of_web = request.uri().path() == "/v1/health/service/web";
    if of_web {
        log.lock().unwrap().push(query.clone());
    }
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let index = value("index").and_then(|text| text.parse::<u64>().ok());
    let now = answers.borrow_and_update().clone();
    if index == Some(now.index) && now.status == 200 {
        let wait = value("wait").and_then(|text| text.strip_suffix("ms")?.parse().ok());
        let wait = Duration::from_millis(wait.expect("a time to wait"));
        let _ = tokio::time::timeout(wait, answers.changed()).await;
    }
    let now = answers.borrow().clone();
    let body = match (now.status, of_web) {
        (200, true) => now.health,
        (200, false) => now.catalogue,
        _ => Bytes::from_static(b"No cluster leader"),
    };
    let response = Response::builder()
        .status(now.status)
        .header("x-consul-index", now.index)
        .header("x-consul-knownleader", now.leader.to_string());
    Ok(response.body(Full::new(body)).unwrap())
}

async fn has_instances(mesh: &weir_tests::Mesh, wanted: u64) {
    eventually(&format!("web has {wanted} instances"), || async {
        let found = service(mesh, "web")?;
        (found["instances"].as_u64().unwrap_or(0) == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_goes_back_is_asked_for_from_the_start() {
    let (one, two) = (App::start("one"), App::start("two"));
    let consul = Fake::start(&[&one]).await;
    let mesh = mesh(&consul.url, "", &[]);
    has_instances(&mesh, 1).await;
    eventually("a question is held back", || async {
        consul.asked.lock().unwrap().iter().any(|query| query.contains("index=100")).then_some(())
    })
    .await;
    let before = consul.asked.lock().unwrap().len();
    consul.list(5, &[&one, &two]);
    has_instances(&mesh, 2).await;
    eventually("the next questions are without an index, and with the new one", || async {
        let asked = consul.asked.lock().unwrap()[before..].to_vec();
        let anew = asked.iter().position(|query| !query.contains("index="))?;
        asked[anew..].iter().any(|query| query.contains("index=5&")).then_some(())
    })
    .await;
    // 0 is no index that could be waited for.
    consul.list(0, &[&one]);
    let before = consul.asked.lock().unwrap().len();
    eventually("it is asked without one", || async {
        let asked = consul.asked.lock().unwrap()[before..].to_vec();
        assert!(!asked.iter().any(|query| query.contains("index=0")), "{asked:?}");
        (asked.iter().filter(|query| !query.contains("index=")).count() > 2).then_some(())
    })
    .await;
    let metrics = mesh.api().get("/metrics").send().await.text();
    let resets = metrics.lines().find(|l| l.starts_with("weir_control_consul_resets ")).unwrap();
    assert!(!resets.ends_with(" 0"), "{resets}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_is_believed_only_when_it_stays() {
    let one = App::start("one");
    let consul = Fake::start(&[&one]).await;
    let mesh = mesh(&consul.url, "", &["--consul-empty-grace", "3s"]);
    route(&mesh, "web");
    let works = || async { shares(&mesh.http(), "web").await.get("one") == Some(&100) };
    assert!(works().await);
    // Once, and then no more.
    consul.list(101, &[]);
    eventually("it is kept", || async {
        let metrics = mesh.api().get("/metrics").send().await.text();
        metrics.contains("weir_control_consul_kept 1").then_some(())
    })
    .await;
    assert!(works().await);
    consul.list(102, &[&one]);
    eventually("it is listed again", || async {
        let metrics = mesh.api().get("/metrics").send().await.text();
        metrics.contains("weir_control_consul_kept 0").then_some(())
    })
    .await;
    // The same index as of the answer that listed something: that cannot be.
    consul.list(102, &[]);
    // It is asked again within 8 s, and must say so for 30.
    never("web is empty", Duration::from_secs(10), || async { !works().await }).await;
    consul.list(103, &[&one]);
    assert!(works().await);
    // For good.
    consul.list(104, &[]);
    eventually("it is gone", || async {
        (service(&mesh, "web")?["instances"].as_u64().unwrap_or(0) == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_is_ill_changes_nothing() {
    let (one, two) = (App::start("one"), App::start("two"));
    let consul = Fake::start(&[&one]).await;
    let graces = ["--consul-leave-grace", "0s", "--consul-empty-grace", "0s"];
    let mesh = mesh(&consul.url, "", &graces);
    route(&mesh, "web");
    has_instances(&mesh, 1).await;
    for (words, change) in [
        ("500", (|answers: &mut Answers| answers.status = 500) as fn(&mut Answers)),
        ("has no leader", |answers| (answers.status, answers.leader) = (200, false)),
        ("answered what is not understood", |answers| {
            answers.leader = true;
            (answers.catalogue, answers.health) = ("[".into(), "{}".into());
        }),
        ("500", |answers| answers.status = 500),
    ] {
        consul.say(|answers| {
            answers.index += 1;
            change(answers);
        });
        let status = eventually(&format!("`weir status` says {words:?}"), || async {
            let status = mesh.weir(&["status"]).ok();
            let trouble = status.lines().find(|line| line.contains("NOT in touch"))?.to_owned();
            trouble.contains(words).then_some(trouble)
        })
        .await;
        assert!(status.contains("1 services, 1 instances"), "{status}");
        assert_eq!(shares(&mesh.http(), "web").await["one"], 100);
    }
    consul.say(|answers| answers.status = 200);
    consul.list(200, &[&one, &two]);
    has_instances(&mesh, 2).await;
    status_says(&mesh, ": in touch").await;
}
