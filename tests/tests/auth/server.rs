//! What stands around the mesh: applications, an issuer, and one who decides.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use weir_proto::envoy::service::auth::v3 as pb;
use weir_proto::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use weir_proto::google::rpc;

use crate::token::Signer;

type Answer = Result<Response<Full<Bytes>>, Infallible>;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn serve<F>(listener: TcpListener, answer: impl Fn(Request<Incoming>) -> F + Clone + 'static)
where
    F: Future<Output = Answer> + 'static,
{
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer.clone()));
            // However it ends, others are served.
            tokio::task::spawn_local(async { drop(connection.await) });
        }
    };
    tokio::task::LocalSet::new().run_until(accept).await;
}

fn names(headers: &HeaderMap) -> Map<String, Value> {
    let value = |name| {
        let all: Vec<_> = headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
        Value::from(all.join(","))
    };
    headers.keys().map(|name| (name.to_string(), value(name))).collect()
}

/// Answers with what it was asked, at `$PORT`, for ever.
pub fn run_app() {
    let Ok(port) = std::env::var("PORT") else { return };
    let port: u16 = port.parse().unwrap();
    runtime().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let answer = |request: Request<Incoming>| async move {
            let asked = json!({
                "path": request.uri().to_string(), "method": request.method().as_str(),
                "headers": names(request.headers()),
            });
            Ok(Response::new(Full::from(asked.to_string())))
        };
        serve(listener, answer).await;
    });
}

/// An issuer's keys. It can go away.
pub struct Jwks {
    pub address: SocketAddr,
    keys: Arc<Mutex<Option<Vec<Value>>>>,
}

impl Jwks {
    pub fn start(signers: &[&Signer]) -> Self {
        let keys: Arc<Mutex<Option<Vec<Value>>>> = Arc::default();
        let (tell, told) = mpsc::channel();
        let served = keys.clone();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let answer = move |_| {
                    let keys = served.lock().unwrap().clone();
                    async move {
                        let mut response = Response::new(Full::default());
                        match keys {
                            Some(keys) => {
                                *response.body_mut() = json!({ "keys": keys }).to_string().into();
                            }
                            None => *response.status_mut() = StatusCode::BAD_GATEWAY,
                        }
                        Ok(response)
                    }
                };
                serve(listener, answer).await;
            });
        });
        let jwks = Self { address: told.recv().unwrap(), keys };
        jwks.publish(signers);
        jwks
    }

    pub fn publish(&self, signers: &[&Signer]) {
        let keys = signers.iter().map(|signer| signer.jwk()).collect();
        *self.keys.lock().unwrap() = Some(keys);
    }

    /// Answers 502 until keys are published again.
    pub fn go_away(&self) {
        *self.keys.lock().unwrap() = None;
    }
}

/// Decides by what requests say of themselves.
pub struct Guard {
    pub address: SocketAddr,
}

impl Guard {
    pub fn start() -> Self {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tonic::transport::Server::builder()
                    .add_service(AuthorizationServer::new(Decides))
                    .serve_with_incoming(TcpListenerStream::new(listener))
                    .await
                    .unwrap();
            });
        });
        Self { address: told.recv().unwrap() }
    }
}

struct Decides;

fn header(key: &str, value: &str) -> pb::HeaderValueOption {
    let (key, value) = (key.to_owned(), value.to_owned());
    let header = Some(pb::HeaderValue { key, value, raw_value: Bytes::new().into() });
    pb::HeaderValueOption { header, append: None }
}

#[tonic::async_trait]
impl Authorization for Decides {
    async fn check(
        &self,
        request: tonic::Request<pb::CheckRequest>,
    ) -> Result<tonic::Response<pb::CheckResponse>, Status> {
        use pb::check_response::HttpResponse;
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let source = attributes.source.unwrap_or_default();
        let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
        let wish = http.headers.get("x-wish").map(String::as_str);
        let (code, response) = match wish {
            Some("hang") => std::future::pending().await,
            Some("break") => return Err(Status::internal("broken")),
            Some("pass") => {
                let seen = format!("{} {} from {:?}", http.method, http.path, source.principal);
                let headers = vec![header("x-checked", &seen), header("host", "elsewhere")];
                let headers_to_remove = vec!["x-secret".to_owned(), "host".to_owned()];
                let ok = pb::OkHttpResponse { headers, headers_to_remove };
                (0, Some(HttpResponse::OkResponse(ok)))
            }
            Some("login") => {
                let denied = pb::DeniedHttpResponse {
                    status: Some(pb::HttpStatus { code: 302 }),
                    headers: vec![header("location", "/login")],
                    body: "log in first".to_owned(),
                };
                (7, Some(HttpResponse::DeniedResponse(denied)))
            }
            _ => (7, None),
        };
        let status = Some(rpc::Status { code, ..Default::default() });
        Ok(tonic::Response::new(pb::CheckResponse { status, http_response: response }))
    }
}

/// Longer than a router waits for [`Guard`].
pub const PATIENCE: Duration = Duration::from_secs(20);
