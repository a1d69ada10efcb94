//! Connections whose bytes are nobody's business: sidecar to sidecar by mTLS, the
//! gateway's TCP and TLS listeners, and what leaves the mesh.

mod egress;
mod imposter;
mod limits;
mod passthrough;
mod redirected;
mod world;

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_tests::eventually;
use world::{connect, is_echoed, is_reset, metric, read_all, world};

#[tokio::test]
async fn bytes_go_through_both_ways_unchanged() {
    let mut stream = connect(world().port("echo")).await;
    for size in [1, 5, 16 * 1024, 300_001] {
        let sent: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
        let (mut read, mut write) = stream.split();
        let mut got = vec![0; size];
        let (wrote, read) = tokio::join!(write.write_all(&sent), read.read_exact(&mut got));
        wrote.unwrap();
        read.unwrap();
        assert!(got == sent, "{size} bytes came back as others");
    }
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(stream).await, b"");
}

#[tokio::test]
async fn a_half_close_reaches_the_other_side_either_way() {
    let mut stream = connect(world().port("count")).await;
    let bytes = vec![7; 1_000_000];
    stream.write_all(&bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(stream).await, b"1000000 bytes");

    let mut stream = connect(world().port("first")).await;
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got.len(), 100_000);
    // It is done, and still takes what we say.
    stream.write_all(b"more").await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let mut stream = connect(world().port("greet")).await;
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    stream.write_all(b"EHLO me\r\n").await.unwrap();
    let mut answer = [0; 13];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"250 EHLO me\r\n");
}

#[tokio::test]
async fn what_is_cut_off_does_not_look_whole() {
    let mut stream = connect(world().port("reset")).await;
    stream.write_all(b"a").await.unwrap();
    let mut some = [0; 4];
    stream.read_exact(&mut some).await.unwrap();
    stream.write_all(b"b").await.unwrap();
    let end = stream.read(&mut some).await;
    assert!(end.is_err(), "a reset looks like an end: {end:?}");
    line_of("reset", "UC").await;
}

#[tokio::test]
async fn policies_say_who_may_connect() {
    assert!(is_echoed(world().port("granted")).await, "the caller may");
    assert!(is_reset(world().port("guarded")).await, "only others may");
    assert!(is_reset(world().port("walled")).await, "also where no router stands");
    let line = eventually("a denial in the access log", || async {
        let lines = world().mesh.access_log().into_iter();
        lines.map(|(_, line)| line).find(|line| line["flags"][0] == "RBAC_ACCESS_DENIED")
    })
    .await;
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("/sa/caller"), "{error}");
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back() {
    let mut stream = connect(world().port("echo")).await;
    // Nobody reads what comes back: at some time no more can be sent.
    let piece = vec![1; 64 * 1024];
    let mut sent = 0_usize;
    while let Ok(wrote) = tokio::time::timeout(Duration::from_secs(2), stream.write(&piece)).await {
        sent += wrote.unwrap();
        assert!(sent < 256 << 20, "256 MiB went somewhere");
    }
    let (mut read, mut write) = stream.into_split();
    let rest = tokio::spawn(async move {
        write.shutdown().await.unwrap();
        write
    });
    let mut got = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match read.read(&mut got).await.unwrap() {
            0 => break,
            count => total += count,
        }
    }
    assert_eq!(total, sent);
    drop(rest.await.unwrap());
}

#[tokio::test]
async fn connections_are_split_exactly_by_weight() {
    let seen = |port: u16| async move {
        let mut second = 0;
        for _ in 0..20 {
            match &*read_all(connect(port).await).await {
                b"v1" => {}
                b"v2" => second += 1,
                other => panic!("{other:?}"),
            }
        }
        second
    };
    // A TCPRoute for a Service, one for a listener of the gateway, and a service's
    // own weights.
    assert_eq!(seen(world().port("split")).await, 10);
    // The gateway's workers count each for itself.
    let second: i32 = seen(world().gateway_port("plainly")).await;
    assert!(second.abs_diff(5) <= 2, "{second} of 20 went to v2");
    assert_eq!(seen(world().port("name")).await, 0);
}

#[tokio::test]
async fn a_process_without_a_router_is_reached_directly() {
    let mut stream = connect(world().port("elsewhere")).await;
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(stream).await, b"ping");
    let plain = read_all(connect(world().gateway_port("outer")).await).await;
    assert_eq!(plain, b"v1", "the gateway's route by listener");
}

#[tokio::test]
async fn nothing_there_is_a_reset_with_a_flag() {
    assert!(is_reset(world().port("nobody")).await);
    let line = line_of("nobody", "UF").await;
    assert!(line["error"].as_str().unwrap().contains("cannot connect to nobody-v1"), "{line}");
}

/// A line of the caller's router about a connection to a service, with this flag
/// (none: empty).
async fn line_of(route: &str, flag: &str) -> Value {
    eventually("a line of the access log", || async {
        let lines = world().mesh.access_log();
        let wanted = |(router, line): &&(String, Value)| {
            router == "caller-v1-1"
                && line["protocol"] == "tcp"
                && line["route"] == route
                && line["flags"].as_array().unwrap().iter().any(|f| f == flag) != flag.is_empty()
        };
        lines.iter().find(wanted).map(|(_, line)| line.clone())
    })
    .await
}

#[tokio::test]
async fn both_routers_tell_of_a_connection_and_who_made_it() {
    let mut stream = connect(world().port("told")).await;
    stream.write_all(b"12345").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(stream).await, b"12345");
    let caller = "spiffe://weir.local/ns/default/sa/caller";
    let line = line_of("told", "").await;
    assert_eq!((&line["peer"], &line["side"]), (&caller.into(), &"outbound".into()));
    assert_eq!((&line["bytes_sent"], &line["bytes_received"]), (&5.into(), &5.into()), "{line}");
    assert_eq!(line["instance"], "told-v1-1", "{line}");
    eventually("the other router's line", || async {
        let lines = world().mesh.access_log();
        let mut inbound = lines.iter().filter(|(router, line)| {
            router == "told-v1-1" && line["side"] == "inbound" && line["peer"] == caller
        });
        inbound.any(|(_, line)| line["bytes_sent"] == 5).then_some(())
    })
    .await;
    for router in ["caller-v1-1-router", "told-v1-1-router"] {
        let count = |name: &'static str| metric(router, name, "weir_service=\"told\"");
        assert_eq!(count("weir_router_tcp_sent_bytes_total").await, 5.0, "{router}");
        assert_eq!(count("weir_router_tcp_received_bytes_total").await, 5.0, "{router}");
        assert_eq!(count("weir_router_tcp_opened_total").await, 1.0, "{router}");
        assert_eq!(count("weir_router_tcp_closed_total").await, 1.0, "{router}");
    }
}

#[tokio::test]
async fn only_routers_of_the_mesh_may_open_streams() {
    let inbound = world().mesh.process("echo-v1-1-router").inbound.unwrap();
    // TLS, but no certificate of the mesh.
    let client = world::openssl(&["s_client", "-connect", &inbound.to_string(), "-ign_eof"]);
    assert!(client.contains("certificate required") || client.contains("alert"), "{client}");
    let mut plain = TcpStream::connect(inbound).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.windows(4).any(|w| w == b"echo"), "{answer:?}");
}

#[tokio::test]
async fn requests_to_a_tcp_service_say_what_to_do() {
    let reply = world().outbound("echo").get("/").send().await;
    assert_eq!(reply.status, 501, "{}", reply.text());
    assert!(reply.text().contains("protocol is tcp"), "{}", reply.text());
    // Nor does the form that routers use among themselves open a stream.
    let forged = world().outbound("echo").call(http::Method::POST, "/weir.tcp.v1");
    let reply = forged.header("content-type", "application/vnd.weir.tcp").body("x").send().await;
    assert_eq!(reply.status, 501, "{}", reply.text());
}

#[tokio::test]
async fn routes_of_connections_are_listed_beside_others() {
    let table = world().mesh.weir(&["get", "routes"]).ok();
    let line = |name: &str| {
        let mut lines = table.lines().map(str::trim_start);
        lines.find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {table}"))
    };
    assert!(line("split ").contains("TCPRoute") && line("split ").contains("service/split"));
    assert!(line("a ").contains("TLSRoute") && line("a ").contains("gateway/gateway/secure"));
    assert!(line("b ").contains("*.example.com"), "{table}");
}

#[tokio::test]
async fn redis_works_through_the_mesh() {
    let Some(port) = world().redis else {
        return;
    };
    let mut stream = connect(port).await;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    let mut pong = [0; 7];
    stream.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"+PONG\r\n");
    stream.write_all(b"SET a 1\r\nINCR a\r\nQUIT\r\n").await.unwrap();
    assert_eq!(read_all(stream).await, b"+OK\r\n:2\r\n+OK\r\n");
}
