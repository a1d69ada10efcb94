//! Applications without a router: each answers with its name, on a thread of its own.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// An application. Dropping it closes its port and its connections.
pub struct App {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

impl App {
    pub fn start(name: &'static str) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve(&listener, name) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: told.recv().unwrap(), stop: Some(stop) }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

async fn serve(listener: &TcpListener, name: &'static str) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let answer = service_fn(move |_| async move {
                let body = Full::new(Bytes::from_static(name.as_bytes()));
                Ok::<_, Infallible>(Response::new(body))
            });
            // A client that hangs up is no failure.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
