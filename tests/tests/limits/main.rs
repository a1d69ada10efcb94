//! Rate limits, and what HTTPRouteFilters do: through the front door, with a real
//! Redis server where counts are kept together. One mesh serves all tests; each
//! has routes and services of its own.

mod filters;
mod global;
mod local;
mod redis;
mod server;

use std::fs;
use std::sync::OnceLock;

use http::Method;
use redis::Redis;
use server::Server;
use weir_tests::{Http, Mesh, Reply, eventually, free_port, weir};

const FILE: &str = include_str!("mesh.yaml");

/// Redis servers that tests start, stop and hold up: one for each of these.
const STORES: [&str; 4] = ["shared", "flushed", "stopped", "closed"];

struct World {
    mesh: Mesh,
    stores: Vec<u16>,
    _servers: [Server; 2],
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let servers = [Server::http1(), Server::grpc()];
        let mut stores = Vec::new();
        while stores.len() < STORES.len() {
            let port = free_port();
            if !stores.contains(&port) {
                stores.push(port);
            }
        }
        let mut text = FILE.replace("{web}", &servers[0].address.to_string());
        text = text.replace("{echo}", &servers[1].address.to_string());
        for (name, port) in STORES.iter().zip(&stores) {
            text = text.replace(&format!("{{{name}}}"), &port.to_string());
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mesh.yaml");
        fs::write(&file, text).unwrap();
        let arguments = ["--file", file.to_str().unwrap()];
        let mesh = Mesh::start_with(weir!(), &arguments, &[("WEIR_TEST_STORE", redis::PASSWORD)]);
        World { mesh, stores, _servers: servers }
    })
}

fn mesh() -> &'static Mesh {
    &world().mesh
}

/// Starts one of the servers, and waits until these routers use it.
async fn store(name: &str, routers: &[&str]) -> Redis {
    let at = STORES.iter().position(|store| *store == name).unwrap();
    let redis = Redis::start(world().stores[at]);
    for router in routers {
        store_is(&redis, router, 1).await;
    }
    redis
}

/// Waits until a router says whether it is connected to a store.
async fn store_is(redis: &Redis, router: &str, up: u8) {
    let wanted = format!(
        "weir_router_rate_limit_store_up{{weir_store=\"redis://127.0.0.1:{}\"}} {up}",
        redis.port
    );
    eventually(&format!("{router}: {wanted}"), || async {
        metrics(router).await.lines().any(|line| line == wanted).then_some(())
    })
    .await;
}

async fn metrics(router: &str) -> String {
    mesh().admin(router).get("/metrics").send().await.text()
}

/// A counter's value by its name and some of its labels; 0 while it is not there.
async fn counted(router: &str, name: &str, labels: &[&str]) -> u64 {
    let text = metrics(router).await;
    let of_name = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let line = of_name.into_iter().find(|line| labels.iter().all(|label| line.contains(label)));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

fn gateway() -> Http {
    Http::new(&mesh().gateway)
}

/// An access-log line of the gateway for this path, once it is there.
async fn logged(path: &str, flag: &str) -> serde_json::Value {
    eventually(&format!("{flag} of {path} in the access log"), || async {
        let lines = mesh().access_log().into_iter().map(|(_, line)| line);
        let mut of_path = lines.filter(|line| line["path"] == path);
        of_path.find(|line| line.to_string().contains(&format!("\"{flag}\"")))
    })
    .await
}

/// A gRPC call with a small message.
async fn call(http: &Http, path: &str, bytes: usize) -> Reply {
    let mut message = vec![0; 5 + bytes];
    message[1..5].copy_from_slice(&u32::try_from(bytes).unwrap().to_be_bytes());
    let call = http.call(Method::POST, path).body(message);
    call.header("content-type", "application/grpc").header("te", "trailers").send().await
}

/// The gRPC status, wherever it is, and its message.
fn status(reply: &Reply) -> (String, String) {
    let of = |name: &str| {
        let found = reply.headers.get(name).or_else(|| reply.trailers.get(name));
        found.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    (of("grpc-status"), of("grpc-message"))
}
