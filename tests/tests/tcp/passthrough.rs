//! TLS that the gateway passes through by its server name.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use weir_tests::DEADLINE;

use crate::world::{connect, openssl, world};

fn client(port: u16, name: &str) -> String {
    let address = format!("127.0.0.1:{port}");
    openssl(&["s_client", "-connect", &address, "-servername", name, "-ign_eof"])
}

async fn client_later(port: u16, name: &'static str) -> String {
    tokio::task::spawn_blocking(move || client(port, name)).await.unwrap()
}

#[tokio::test]
async fn a_client_sees_the_servers_own_certificate() {
    let port = world().gateway_port("secure");
    for (name, server) in [
        ("a.example.com", "a"),
        ("A.Example.COM", "a"),
        ("b.example.com", "b"),
        ("deep.down.example.com", "b"),
    ] {
        let said = client_later(port, name).await;
        assert!(said.contains(&format!("CN = server {server}")), "{name}: {said}");
        assert!(said.contains(&format!("hello from {server}")), "{name}: {said}");
    }
}

#[tokio::test]
async fn a_name_without_a_route_is_refused_in_tls_words() {
    let port = world().gateway_port("secure");
    for name in ["example.com", "a.example.org"] {
        let said = client_later(port, name).await;
        assert!(said.contains("unrecognized name"), "{name}: {said}");
    }
    let address = format!("127.0.0.1:{port}");
    let nameless = tokio::task::spawn_blocking(move || {
        openssl(&["s_client", "-connect", &address, "-noservername"])
    });
    let said = nameless.await.unwrap();
    assert!(said.contains("unrecognized name"), "{said}");
}

/// Sends what openssl says in single bytes.
#[tokio::test]
async fn a_hello_may_come_byte_by_byte() {
    let secure = world().gateway_port("secure");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let chopping = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let gateway = connect(secure).await;
        let (mut from, mut back) = client.into_split();
        let (mut answers, mut to) = gateway.into_split();
        let up = async {
            let mut byte = [0];
            while from.read(&mut byte).await.unwrap_or(0) > 0 {
                if to.write_all(&byte).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let down = async {
            let _ = tokio::io::copy(&mut answers, &mut back).await;
        };
        tokio::select! { () = up => {} () = down => {} }
    });
    let said = client_later(port, "a.example.com").await;
    assert!(said.contains("hello from a"), "{said}");
    chopping.await.unwrap();
}

#[tokio::test]
async fn what_is_no_hello_or_none_in_time_is_closed() {
    let port = world().gateway_port("secure");
    let slow_start: &[u8] = &[22, 3, 1, 2];
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], slow_start] {
        let mut stream = connect(port).await;
        stream.write_all(bytes).await.unwrap();
        let mut rest = [0; 64];
        let end = tokio::time::timeout(DEADLINE, stream.read(&mut rest)).await;
        let end = end.unwrap_or_else(|_| panic!("{bytes:?} is waited for without a bound"));
        assert!(!matches!(end, Ok(1..)), "{bytes:?}: {end:?}");
    }
}
