//! HTTP/1.1 connections that are idle are parked by the router: a client must not
//! notice. Time passes in these tests because that is what parks a connection.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use weir_tests::{DEADLINE, Mesh, weir};

/// Longer than a connection is idle before it is parked (1 to 2 s).
const PARKED: Duration = Duration::from_millis(2_500);
const REQUEST: &[u8] = b"GET /v1/products?pageSize=1 HTTP/1.1\r\nhost: gateway\r\n\r\n";

async fn connect() -> TcpStream {
    static MESH: OnceLock<Mesh> = OnceLock::new();
    let mesh = MESH.get_or_init(|| Mesh::start(weir!(), &[]));
    let address: SocketAddr = mesh.gateway.trim_start_matches("http://").parse().unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Reads one answer, which must be good and whole.
async fn answered(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(DEADLINE, stream.read_u8()).await.expect("an answer in time");
        head.push(byte.expect("the connection stays open"));
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.expect("a content-length").parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    assert!(body.starts_with(b"{\"products\""), "{}", String::from_utf8_lossy(&body));
}

#[tokio::test]
async fn it_serves_again_and_again() {
    let mut stream = connect().await;
    for _ in 0..3 {
        stream.write_all(REQUEST).await.unwrap();
        answered(&mut stream).await;
        sleep(PARKED).await;
    }
    stream.write_all(&REQUEST.repeat(3)).await.unwrap();
    for _ in 0..3 {
        answered(&mut stream).await;
    }
}

#[tokio::test]
async fn a_head_that_comes_slowly_is_not_lost() {
    let mut stream = connect().await;
    for part in REQUEST.chunks(25) {
        stream.write_all(part).await.unwrap();
        sleep(PARKED).await;
    }
    answered(&mut stream).await;
}

#[tokio::test]
async fn what_came_behind_a_request_is_not_lost() {
    let mut stream = connect().await;
    let (half, rest) = REQUEST.split_at(20);
    stream.write_all(&[REQUEST, half].concat()).await.unwrap();
    answered(&mut stream).await;
    sleep(PARKED).await;
    stream.write_all(rest).await.unwrap();
    answered(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_parked_is_no_trouble() {
    for _ in 0..3 {
        let mut stream = connect().await;
        stream.write_all(REQUEST).await.unwrap();
        answered(&mut stream).await;
        sleep(PARKED).await;
        drop(stream);
    }
    let mut stream = connect().await;
    stream.write_all(REQUEST).await.unwrap();
    answered(&mut stream).await;
}

/// Whatever comes until the end of the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is an end too.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut all)).await.expect("an end in time");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn what_is_left_of_a_body_is_never_a_request() {
    let mut stream = connect().await;
    let head = format!(
        "POST /not/there HTTP/1.1\r\nhost: gateway\r\ncontent-length: {}\r\n\r\n",
        10 + REQUEST.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"0123456789").await.unwrap();
    sleep(PARKED).await;
    // The answer has been there for long, and the body goes on with what looks
    // like a request.
    let _ = stream.write_all(REQUEST).await;
    let _ = stream.shutdown().await;
    let answers = rest(&mut stream).await;
    assert!(!answers.contains("products"), "{answers}");
    assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{answers}");
}

#[tokio::test]
async fn who_asks_for_the_end_of_the_connection_gets_it() {
    for request in [
        "GET /v1/products?pageSize=1 HTTP/1.0\r\nhost: gateway\r\n\r\n",
        "GET /v1/products?pageSize=1 HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n",
    ] {
        let mut stream = connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.contains(" 200 ") && answer.contains("products"), "{answer}");
    }
}

#[tokio::test]
async fn two_hosts_are_refused() {
    let mut stream = connect().await;
    let request = "GET /v1/products HTTP/1.1\r\nhost: gateway\r\nhost: internal\r\n\
                   connection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("more than one Host header"), "{answer}");
}
