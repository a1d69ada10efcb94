//! `load` against servers that do what the upstream does not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread;

use bytes::Bytes;
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use weir_mesh::identity::{ALPN_H2, SpiffeId, Svid, TrustBundle, server_config};

use crate::{Process, load, refused};

/// Answers each request with `answer`, in pieces of `piece` bytes, and ends
/// the connection if `close`. Ends with the test.
fn serve(answer: &'static str, piece: usize, close: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer_one = move |mut stream: std::net::TcpStream| {
        stream.set_nodelay(true).unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|count| count > 0) {
            request.push(byte[0]);
            if request.ends_with(b"\r\n\r\n") {
                request.clear();
                for piece in answer.as_bytes().chunks(piece) {
                    let _ = stream.write_all(piece);
                }
                if close {
                    return;
                }
            }
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer_one(stream.unwrap()));
        }
    });
    address
}

#[test]
fn answers_of_every_form_are_read() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nX-Upstream: v7\r\n\r\n\
                   3\r\nabc\r\n3;x=y\r\ndef\r\n0\r\n\r\n";
    let continued = "HTTP/1.1 100 Continue\r\n\r\n\
                     HTTP/1.1 200 OK\r\ncontent-length: 6\r\nX-Upstream: v7\r\n\r\nabcdef";
    let until_close = "HTTP/1.1 200 OK\r\nX-Upstream: v7\r\n\r\nabcdef";
    let closing = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\
                   x-upstream: v7\r\n\r\nabcdef";
    let cases = [
        (chunked, 1, false, 1),
        (chunked, 1000, false, 1),
        (continued, 7, false, 1),
        (until_close, 4, true, 10),
        (closing, 1000, true, 10),
    ];
    for (answer, piece, close, connections) in cases {
        let address = serve(answer, piece, close);
        let report = load(address, "--protocol http1 --requests 10 --response-bytes 6");
        assert_eq!(report["upstreams"], json!({ "v7": 10 }), "{answer}: {report}");
        assert_eq!(report["connections"], connections, "{answer}: {report}");
        assert_eq!(report["failed"], 0, "{answer}: {report}");
    }
}

#[test]
fn broken_answers_are_failures_with_a_name() {
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc", "connection closed within a body"),
        ("HTTP/1.1 200 OK\r\ncontent-le", "connection closed before an answer"),
        ("", "connection closed before an answer"),
        ("nonsense\r\n\r\n", "bad version"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdeF", "body differs"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
    ];
    for (answer, kind) in cases {
        let address = serve(answer, 1000, true);
        let report = load(address, "--protocol http1 --requests 5 --churn --response-bytes 6");
        assert_eq!(report["errors"], json!({ kind: 5 }), "{answer}: {report}");
    }
}

/// A server that is told to end says so, and takes no more. What it had not
/// begun is no failure.
#[test]
fn a_connection_that_a_server_winds_down_is_replaced() {
    let runtime = Runtime::new().unwrap();
    let address = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer_ten(stream));
            }
        });
        address
    });
    let report = load(address, "--protocol http2 --streams 4 --requests 100 --response-bytes 6");
    assert_eq!(report["requests"], 100, "{report}");
    assert_eq!(report["failed"], 0, "{report}");
    assert!(report["retried"].as_u64() >= Some(1), "{report}");
    assert!(report["connections"].as_u64() >= Some(3), "{report}");
}

async fn answer_ten(stream: TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut answered = 0;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"abcdef"), true).unwrap();
        answered += 1;
        if answered == 10 {
            connection.graceful_shutdown();
        }
    }
}

#[test]
fn the_upstream_says_that_it_is_healthy() {
    let upstream = Process::upstream("--protocol http2");
    let runtime = Runtime::new().unwrap();
    let (answer, status) = runtime.block_on(async {
        let stream = TcpStream::connect(upstream.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://a/grpc.health.v1.Health/Check")
            .header("content-type", "application/grpc");
        let (response, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        // An empty HealthCheckRequest.
        body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let answer = body.data().await.unwrap().unwrap();
        let trailers = body.trailers().await.unwrap().unwrap();
        (answer, trailers["grpc-status"].clone())
    });
    // HealthCheckResponse { status: SERVING }
    assert_eq!(answer, &[0, 0, 0, 0, 2, 0x08, 0x01][..]);
    assert_eq!(status, "0");
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::of_service("bench.test", name).unwrap()
}

/// A trust domain: its root, and two workloads.
struct Domain {
    directory: tempfile::TempDir,
}

impl Domain {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("ca.pem"), root.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for name in ["server", "client"] {
            let mut params = CertificateParams::default();
            let uri = SanType::URI(id(name).as_str().try_into().unwrap());
            params.subject_alt_names = vec![uri];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            let path = |kind| directory.path().join(format!("{name}.{kind}"));
            std::fs::write(path("pem"), certificate.pem()).unwrap();
            std::fs::write(path("key"), key.serialize_pem()).unwrap();
        }
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn flags(&self) -> String {
        let at = self.path().display();
        format!("--mtls-cert {at}/client.pem --mtls-key {at}/client.key --mtls-ca {at}/ca.pem")
    }

    fn server(&self) -> std::sync::Arc<rustls::ServerConfig> {
        let read = |file: &str| std::fs::read_to_string(self.path().join(file)).unwrap();
        let svid = Svid::from_pem(read("server.pem") + &read("server.key")).unwrap();
        let bundle = TrustBundle::load(self.path().join("ca.pem")).unwrap();
        server_config(&svid, &bundle, ALPN_H2).unwrap()
    }
}

/// Takes mutual TLS, and passes what is in it on to `to`.
async fn terminate(config: std::sync::Arc<rustls::ServerConfig>, to: SocketAddr) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut upstream = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut upstream).await
            });
        }
    });
    address
}

#[test]
fn mutual_tls_is_spoken_and_checked() {
    let upstream = Process::upstream("--protocol http2 --name v3");
    let (domain, stranger) = (Domain::new(), Domain::new());
    let runtime = Runtime::new().unwrap();
    let address = runtime.block_on(terminate(domain.server(), upstream.address));
    let ask = |flags: String| -> Value { load(address, &format!("{flags} --requests 20")) };
    for protocol in ["http2", "grpc --streams 4"] {
        let with_id = format!("--server-name {}", id("server"));
        for name in ["", &with_id, "--server-name bench.test"] {
            let report = ask(format!("--protocol {protocol} {name} {}", domain.flags()));
            assert_eq!(report["upstreams"], json!({ "v3": 20 }), "{name}: {report}");
        }
    }
    let wrong = [
        format!("--protocol http2 --server-name {} {}", id("other"), domain.flags()),
        // Whom the server does not know, and who does not know the server.
        format!("--protocol http2 {}", stranger.flags()),
        format!(
            "--protocol http2 {}",
            domain.flags().replace(
                &domain.path().join("ca.pem").display().to_string(),
                &stranger.path().join("ca.pem").display().to_string(),
            )
        ),
        "--protocol http2".to_owned(),
    ];
    for flags in wrong {
        let report = ask(flags.clone());
        assert_eq!(report["failed"], 20, "{flags}: {report}");
    }
    let flags = format!("--protocol http1 {}", domain.flags());
    let said = refused(&format!("load --target {address} {flags}"));
    assert!(said.contains("--mtls-cert"), "{said}");
}
