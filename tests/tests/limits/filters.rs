//! What HTTPRouteFilters do.

use std::process::Stdio;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use weir_tests::{DEADLINE, Http, eventually};

use crate::server::text;
use crate::{call, gateway, logged, mesh, status};

#[tokio::test]
async fn a_direct_response_asks_nobody() {
    let reply = gateway().get("/direct/text/5").send().await;
    assert_eq!((reply.status.as_u16(), &*reply.text()), (418, "{\"tea\": true}"));
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("x-pot"), "small");
    let head = gateway().call(Method::HEAD, "/direct").send().await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (418, "13"));
}

#[tokio::test]
async fn a_share_is_aborted() {
    let http = gateway();
    let mut aborted = 0;
    for _ in 0..400 {
        let reply = http.get("/aborted/text/5").send().await;
        match reply.status.as_u16() {
            503 => {
                assert!(
                    reply.text().contains("HTTPRouteFilter \\\"aborted\\\""),
                    "{}",
                    reply.text()
                );
                aborted += 1;
            }
            status => assert_eq!(status, 200, "{}", reply.text()),
        }
    }
    assert!((94..=106).contains(&aborted), "{aborted} of 400");
    logged("/aborted/text/5", "FI").await;
}

#[tokio::test]
async fn delays_and_aborts_are_drawn_for_themselves() {
    let http = gateway();
    let mut aborted = 0;
    for _ in 0..200 {
        // PERMISSION_DENIED, as HTTP says it.
        aborted += u32::from(http.get("/delayed/text/5").send().await.status == 403);
    }
    assert!((94..=106).contains(&aborted), "{aborted} of 200");
    logged("/delayed/text/5", "DI").await;
    let of_path = eventually("all of them are in the access log", || async {
        let lines = mesh().access_log().into_iter().map(|(_, line)| line.to_string());
        let of_path: Vec<_> = lines.filter(|line| line.contains("/delayed/text/5")).collect();
        (of_path.len() == 200).then_some(of_path)
    })
    .await;
    // As often as chance would have it.
    let both = of_path.iter().filter(|l| l.contains("\"DI\"") && l.contains("\"FI\"")).count();
    assert!((40..=60).contains(&both), "{both} of {}", of_path.len());
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let post = |bytes: usize| gateway().call(Method::POST, "/sized").body("x".repeat(bytes)).send();
    assert_eq!(post(1000).await.text(), "1000");
    let reply = post(1001).await;
    assert_eq!(reply.status, 413, "{}", reply.text());
    assert!(reply.text().contains("larger than 1000 bytes"), "{}", reply.text());

    // Of unknown length: in the middle of it.
    let chunks = |count: usize| async move {
        let gateway = mesh().gateway.trim_start_matches("http://");
        let mut stream = TcpStream::connect(gateway).await.unwrap();
        let head = "POST /sized HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..count {
            stream.write_all(format!("64\r\n{}\r\n", "x".repeat(100)).as_bytes()).await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    assert_eq!(chunks(10).await, "HTTP/1.1 200");
    assert_eq!(chunks(11).await, "HTTP/1.1 413");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_passed_on() {
    let http = gateway();
    for kind in ["text", "chunked"] {
        let reply = http.get(&format!("/sized/{kind}/2000")).send().await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, text(2000)), "{kind}");
    }
    let reply = http.get("/sized/text/2001").send().await;
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert!(reply.text().contains("its body has 2001 bytes"), "{}", reply.text());
    for http in [gateway(), Http::http2(&mesh().gateway)] {
        assert!(http.get("/sized/chunked/2001").try_send().await.is_err());
    }
    logged("/sized/chunked/2001", "UPE").await;
}

#[tokio::test]
async fn grpc_is_told_in_its_own_words() {
    let http = Http::http2(&mesh().gateway);
    assert_eq!(status(&call(&http, "/small.v1.Echo/Say", 400).await).0, "0");
    // The echo is larger than an answer may be.
    let reply = call(&http, "/small.v1.Echo/Say", 600).await;
    let (code, message) = status(&reply);
    assert!(["8", "13"].contains(&&*code), "{code} {message}");
    let reply = call(&http, "/small.v1.Echo/Say", 2000).await;
    let (code, message) = status(&reply);
    assert_eq!(code, "8", "{message}");
    assert!(message.contains("larger than 1000 bytes"), "{message}");
}

async fn curl(arguments: &[&str], path: &str) -> (String, Vec<u8>) {
    let mut command = Command::new("curl");
    command.args(["-s", "-S", "--max-time", "30", "-D", "/dev/stderr"]).args(arguments);
    let output = command.arg(format!("{}{path}", mesh().gateway)).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    (String::from_utf8(output.stderr).unwrap().to_ascii_lowercase(), output.stdout)
}

#[tokio::test]
async fn answers_are_compressed_for_who_can_read_them() {
    for kind in ["text", "chunked"] {
        for bytes in [2000, 300_000] {
            let path = format!("/zipped/{kind}/{bytes}");
            let (head, body) = curl(&["--compressed"], &path).await;
            assert!(head.contains("content-encoding: gzip"), "{head}");
            assert!(head.contains("vary: accept-encoding"), "{head}");
            assert!(!head.contains("content-length"), "{head}");
            assert_eq!(head.contains("etag: w/\"one\""), kind == "text", "{head}");
            assert_eq!(body, text(bytes).into_bytes(), "{path}");
            let (_, small) = curl(&["-H", "accept-encoding: gzip"], &path).await;
            assert!(small.len() < bytes / 2, "{path}: {}", small.len());
            let (head, same) = curl(&["-H", "accept-encoding: gzip;q=0, br"], &path).await;
            assert!(!head.contains("content-encoding") && same == body, "{head}");
            assert!(head.contains("vary: accept-encoding"), "{head}");
        }
    }
    let (head, _) = curl(&["--compressed"], "/zipped/text/100").await;
    assert!(!head.contains("content-encoding"), "small: {head}");
    let (head, _) = curl(&["--compressed"], "/sized/text/2000").await;
    assert!(!head.contains("content-encoding"), "another rule: {head}");
}

/// The stream goes on and says nothing more: the event has to come all the same.
#[tokio::test]
async fn events_are_not_held_back() {
    let mut command = Command::new("curl");
    command.args(["-s", "-N", "--compressed", "-H", "accept: text/event-stream"]);
    command.arg(format!("{}/zipped/events", mesh().gateway));
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut event = [0; 13];
    let reading = child.stdout.as_mut().unwrap().read_exact(&mut event);
    tokio::time::timeout(DEADLINE, reading).await.expect("an event").unwrap();
    assert_eq!(&event, b"data: first\n\n");
}
