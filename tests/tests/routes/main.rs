//! What routes say and what then happens, at the gateway and inside the mesh, by
//! HTTP/1.1, HTTP/2 and gRPC. One mesh serves all tests; each has its own paths.

mod choice;
mod cors;
mod filters;
mod matching;
mod mirror;
mod upstream;

use std::fs;
use std::sync::OnceLock;

use serde_json::Value;
use upstream::Upstream;
use weir_tests::{Http, Mesh, Reply, weir};

struct World {
    mesh: Mesh,
    shadow: Upstream,
    shadow_grpc: Upstream,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let start = |name, version, grpc| (name, Upstream::start(version, grpc));
        let servers = [
            start("web-1", "v1", false),
            start("web-2", "v2", false),
            start("web-3", "v3", false),
            start("shadow", "v1", false),
            start("talk-1", "v1", true),
            start("talk-2", "v2", true),
        ];
        let mut text = include_str!("mesh.yaml").to_owned();
        for (name, server) in &servers {
            text = text.replace(&format!("{{{name}}}"), &format!("\"{}\"", server.address));
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mesh.yaml");
        fs::write(&file, text).unwrap();
        let mesh = Mesh::start(weir!(), &["--file", file.to_str().unwrap()]);
        let [_, _, _, (_, shadow), _, (_, shadow_grpc)] = servers;
        World { mesh, shadow, shadow_grpc }
    })
}

fn mesh() -> &'static Mesh {
    &world().mesh
}

/// The gateway's address.
fn gateway() -> std::net::SocketAddr {
    mesh().gateway.trim_start_matches("http://").parse().unwrap()
}

/// The gateway and a sidecar's outbound listener, by HTTP/1.1 and HTTP/2. Each is
/// asked for `service`.
fn doors(service: &str) -> [(&'static str, Http); 4] {
    let outbound = mesh().process("caller-v1-1-router").outbound.unwrap();
    let http1 = |at: &str| Http::new(at).with_header("host", service);
    let http2 = |at| Http::http2_via(&format!("http://{service}"), at);
    [
        ("gateway, HTTP/1.1", http1(&mesh().gateway)),
        ("gateway, HTTP/2", http2(gateway())),
        ("sidecar, HTTP/1.1", http1(&format!("http://{outbound}"))),
        ("sidecar, HTTP/2", http2(outbound)),
    ]
}

/// Those that speak HTTP/2.
fn http2_doors(service: &str) -> impl Iterator<Item = (&'static str, Http)> {
    doors(service).into_iter().filter(|(door, _)| door.ends_with("HTTP/2"))
}

#[track_caller]
fn good(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// A call of gRPC with one empty message.
async fn say(http: &Http, path: &str) -> Reply {
    let call = http.call(http::Method::POST, path).body(&b"\0\0\0\0\0"[..]);
    call.header("content-type", "application/grpc").header("te", "trailers").send().await
}
