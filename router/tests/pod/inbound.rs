//! What comes to a pod.

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::plane::identity;
use crate::world::{connect, eventually, hear, talk};
use crate::{World, policy};

pub async fn test(world: World) {
    plaintext_of_others(&world);
    policies_of_every_service_of_a_port(&world).await;
    probes(&world);
    the_own_port(&world);
    the_end(world).await;
}

fn plaintext_of_others(world: &World) {
    let (plain, server, other) = (&world.plain, &world.server, &world.other);
    let answer = plain.get(&server.at(8080), "anything", "/x");
    assert!(answer.contains("I am server") && answer.contains("host: anything"), "{answer}");
    assert!(!answer.to_lowercase().contains("x-forwarded-client-cert"), "{answer}");
    let http2 = tokio::task::block_in_place(|| {
        let stream = plain.connect(&server.at(8080));
        tokio::runtime::Handle::current().block_on(get_http2(stream))
    });
    assert!(http2.contains("I am server"), "{http2}");
    // A declared port of bytes, one that is opaque for this pod, one that nobody knows.
    assert_eq!(talk(plain.connect(&server.at(5432)), "x").unwrap(), "220 db\nx");
    assert_eq!(talk(plain.connect(&other.at(9000)), "x").unwrap(), "220 opaque\nx");
    let answer = plain.get(&server.at(9999), "x", "/");
    assert!(answer.contains("I am hidden") && !answer.contains("traceparent"), "{answer}");
    // What the outside says of who it is.
    let mut stream = plain.connect(&server.at(8080));
    let request = "GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-client-cert: URI=me\r\n\
                   connection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let answer = hear(stream).unwrap();
    assert!(answer.contains("I am server") && !answer.contains("URI=me"), "{answer}");
}

async fn get_http2(stream: std::net::TcpStream) -> String {
    stream.set_nonblocking(true).unwrap();
    let stream = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
    let executor = TokioExecutor::new();
    let shaken = hyper::client::conn::http2::handshake(executor, stream).await;
    let (mut sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://web.shop/").body(Empty::<bytes::Bytes>::new());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

async fn policies_of_every_service_of_a_port(world: &World) {
    let (client, plain, server) = (&world.client, &world.plain, &world.server);
    let from = |account: &str| json!({"identities": [identity(account)]});
    let allow = |rules| json!({"action": "Allow", "rules": rules});
    let publish = |policies: Vec<_>| world.publish(|snapshot| snapshot.policies = policies);

    // One service allows everything of the client, the other a path alone: both are asked.
    let web = allow(json!([{"from": from("shop/client")}]));
    let second = allow(json!([{"to": {"paths": [{"type": "Exact", "value": "/open"}]}}]));
    publish(vec![
        policy("AuthorizationPolicy", "web", "web.shop", web.clone()),
        policy("AuthorizationPolicy", "second", "second.shop", second),
    ])
    .await;
    assert!(client.get("10.96.0.1:80", "web.shop", "/open").contains("I am server"));
    let denied = client.get("10.96.0.1:80", "web.shop", "/closed");
    assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
    let denied = plain.get(&server.at(8080), "second.shop", "/open");
    assert!(denied.starts_with("HTTP/1.1 403"), "nobody is not the client: {denied}");
    // TLS to such a port would hide what is asked for.
    let mut stream = plain.connect(&server.at(8080));
    let sent = std::io::Write::write_all(&mut stream, &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0]);
    assert!(sent.is_err() || hear(stream).is_ok_and(|said| !said.contains("I am server")));

    // A pod that is taken out of the mesh while it ends keeps its policies.
    world
        .publish(|snapshot| {
            snapshot.instances.retain(|instance| instance.id != "shop/server-1");
            snapshot.policies = vec![policy("AuthorizationPolicy", "web", "web.shop", web.clone())];
        })
        .await;
    let denied = plain.get(&server.at(8080), "x", "/");
    assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
    let gone = client.get("10.96.0.1:80", "x", "/");
    assert!(gone.starts_with("HTTP/1.1 503"), "{gone}");

    // Bytes are allowed or denied by who sends them.
    publish(vec![policy("AuthorizationPolicy", "db", "db.shop", web)]).await;
    assert_eq!(talk(client.connect("10.96.0.4:5432"), "x").unwrap(), "220 db\nx");
    let denied = talk(plain.connect(&server.at(5432)), "x");
    assert!(denied.as_ref().map_or(true, String::is_empty), "{denied:?}");

    // Limits of one of them hold for what comes to the other.
    let spec = json!({"rules": [{"name": "few", "limit": {"requests": 1, "per": "1h"}}]});
    publish(vec![policy("RateLimitPolicy", "few", "second.shop", spec)]).await;
    assert!(client.get("10.96.0.1:80", "web.shop", "/").starts_with("HTTP/1.1 200"));
    assert!(client.get("10.96.0.1:80", "web.shop", "/").starts_with("HTTP/1.1 429"));
    publish(vec![]).await;
}

fn probes(world: &World) {
    let (server, plain) = (&world.server, &world.plain);
    let runtime = tokio::runtime::Handle::current();
    let closed = json!({"action": "Deny", "rules": [{}]});
    let policy = policy("AuthorizationPolicy", "closed", "web.shop", closed);
    tokio::task::block_in_place(|| {
        runtime.block_on(world.publish(|snapshot| snapshot.policies = vec![policy]));
    });
    let status = |path: &str| plain.get(&server.at(8080), "x", path)[..12].to_owned();
    assert_eq!(status("/healthz?deep"), "HTTP/1.1 200");
    assert_eq!(status("/"), "HTTP/1.1 403");
    assert_eq!(status("/healthz/more"), "HTTP/1.1 403");
    let mut stream = plain.connect(&server.at(8080));
    let post =
        "POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, post.as_bytes()).unwrap();
    assert!(hear(stream).unwrap().starts_with("HTTP/1.1 403"));

    let probe = |port: u16| server.admin(&format!("/probe/tcp/{port}"));
    assert!(probe(5432).starts_with("HTTP/1.1 200"));
    assert!(probe(5433).starts_with("HTTP/1.1 503"));
    let config = server.admin("/config");
    assert!(!config.contains("shop/server\n") && !config.contains("PRIVATE"), "{config}");
}

fn the_own_port(world: &World) {
    let direct = world.plain.run(|| connect(&world.server.at(15006)));
    let answer = direct.map(|stream| hear(stream).unwrap_or_default());
    assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
}

/// A request that is under way ends well; the router is not ready meanwhile.
async fn the_end(mut world: World) {
    world.publish(|_| {}).await;
    let listener = world.other.listen(8090);
    let client = &world.client;
    let mut stream = client.connect("10.96.0.8:80");
    let accepting = tokio::task::spawn_blocking(move || listener.accept().unwrap().0);
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut taken = accepting.await.unwrap();
    let mut asked = [0; 4096];
    assert!(std::io::Read::read(&mut taken, &mut asked).unwrap() > 10);
    let pid = Pid::from_raw(world.other.router_pid().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let other = &world.other;
    eventually("not ready", || async {
        let answer = other.admin("/ready");
        answer.contains("draining").then_some(())
    })
    .await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate";
    std::io::Write::write_all(&mut taken, answer.as_bytes()).unwrap();
    drop(taken);
    assert!(hear(stream).unwrap().ends_with("late"));
    let began = std::time::Instant::now();
    while !world.other.has_ended() {
        assert!(began.elapsed() < crate::world::DEADLINE, "it goes on");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
