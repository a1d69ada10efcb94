//! Processes without a router. Each has a thread and a runtime of its own, so
//! that one can be killed while a test goes on.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// What a server does.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// Speaks HTTP/1.1, told byte by byte: answers with what it was asked.
    Http1,
    /// Reads a request of HTTP/1.1 and hangs up.
    HangsUp,
    /// Speaks gRPC over HTTP/2: answers with the same message.
    Grpc,
}

/// A process at an address. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(manner: Manner, version: &'static str) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = accept(&listener, manner, version) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: told.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn accept(listener: &TcpListener, manner: Manner, version: &'static str) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            // However a connection ends, the next one is served.
            match manner {
                Manner::Http1 | Manner::HangsUp => drop(http1(stream, manner, version).await),
                Manner::Grpc => {
                    let echo = service_fn(move |request| echo(request, version));
                    let served = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), echo);
                    drop(served.await);
                }
            }
        });
    }
}

async fn http1(stream: TcpStream, manner: Manner, version: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let body = read_body(&mut stream, &head).await?;
        let target = head[0].split(' ').nth(1).unwrap_or_default();
        if target.ends_with("/slow") {
            std::future::pending::<()>().await;
        }
        if matches!(manner, Manner::HangsUp) {
            return Ok(());
        }
        let json = json!({"version": version, "head": head, "body": body}).to_string();
        if target.ends_with("/1.0") {
            let answer = format!("HTTP/1.0 200 OK\r\nkeep-alive: max=1\r\n\r\n{json}");
            return stream.write_all(answer.as_bytes()).await;
        }
        // Chunked, with all that belongs to this connection alone.
        let (first, second) = json.split_at(json.len() / 2);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-private\r\nx-private: secret\r\n\
             keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nx-public: yes\r\n\
             transfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            first.len(),
            second.len(),
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}

async fn read_body(stream: &mut BufReader<TcpStream>, head: &[String]) -> std::io::Result<String> {
    let header = |name: &str| {
        let value = |line: &String| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        head.iter().find_map(value)
    };
    let mut body = Vec::new();
    if let Some(length) = header("content-length") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).await?;
    } else if header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).await?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    Ok(String::from_utf8(body).unwrap())
}

async fn echo(
    request: Request<Incoming>,
    version: &'static str,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let cert = request.headers().contains_key("x-forwarded-client-cert");
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static(if cert { "7" } else { "0" }),
    )]);
    let body = Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-version", version)
        .body(body);
    Ok(response.unwrap())
}
