//! gRPC server reflection for everything behind the gateway, so that clients
//! such as grpcurl need no files.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::codegen::Service;
use tonic_reflection::server::{Builder, Error};

type Answering = Pin<Box<dyn Future<Output = Response<tonic::body::Body>> + Send>>;
type Server = Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// Answers `grpc.reflection`, v1 and v1alpha, from the services' descriptor sets.
pub struct Reflection {
    v1: Server,
    v1alpha: Server,
}

impl Reflection {
    /// Of all given sets together.
    ///
    /// # Errors
    /// When one cannot be read, or lacks a name.
    pub fn new(sets: &[Bytes]) -> Result<Self, Error> {
        // Each build takes its builder, and builders keep borrowed sets.
        let builder = || {
            sets.iter().fold(Builder::configure(), |builder, set| {
                builder.register_encoded_file_descriptor_set(set)
            })
        };
        Ok(Self { v1: server(builder().build_v1()?), v1alpha: server(builder().build_v1alpha()?) })
    }

    /// The answer, if a path is reflection's.
    pub fn answer(&self, request: Request<Incoming>) -> Option<Answering> {
        let server = match service(request.uri().path()) {
            "/grpc.reflection.v1.ServerReflection" => &self.v1,
            "/grpc.reflection.v1alpha.ServerReflection" => &self.v1alpha,
            _ => return None,
        };
        Some(server(request))
    }
}

/// Whether a path is reflection's.
#[must_use]
pub fn is_reflection(path: &str) -> bool {
    service(path).starts_with("/grpc.reflection.")
}

fn service(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(service, _)| service)
}

fn server<S>(server: S) -> Server
where
    S: Service<
            Request<Incoming>,
            Response = Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    Box::new(move |request| {
        let mut server = server.clone();
        let answering = server.call(request);
        Box::pin(async move {
            match answering.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    })
}
