//! Why a request got no answer from its backend, and what its client is told.

use std::time::Duration;

use http::StatusCode;

use crate::auth::{Denial, Unauthenticated};

/// gRPC status codes (grpc.io, "Status codes and their use in gRPC").
pub mod grpc {
    /// OK.
    pub const OK: u8 = 0;
    /// CANCELLED.
    pub const CANCELLED: u8 = 1;
    /// UNKNOWN.
    pub const UNKNOWN: u8 = 2;
    /// INVALID_ARGUMENT.
    pub const INVALID_ARGUMENT: u8 = 3;
    /// DEADLINE_EXCEEDED.
    pub const DEADLINE_EXCEEDED: u8 = 4;
    /// NOT_FOUND.
    pub const NOT_FOUND: u8 = 5;
    /// PERMISSION_DENIED.
    pub const PERMISSION_DENIED: u8 = 7;
    /// RESOURCE_EXHAUSTED.
    pub const RESOURCE_EXHAUSTED: u8 = 8;
    /// UNIMPLEMENTED.
    pub const UNIMPLEMENTED: u8 = 12;
    /// INTERNAL.
    pub const INTERNAL: u8 = 13;
    /// UNAVAILABLE.
    pub const UNAVAILABLE: u8 = 14;
    /// DATA_LOSS.
    pub const DATA_LOSS: u8 = 15;
    /// UNAUTHENTICATED.
    pub const UNAUTHENTICATED: u8 = 16;
}

/// Everything that ends a request in a router.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// No snapshot yet: nothing is known.
    #[error("this router has no configuration yet; is the control plane running?")]
    NotReady,
    /// The request has no host that could be routed by.
    #[error("the request has no usable host; set Host or :authority to a service's name")]
    NoHost,
    /// No service has this name.
    #[error("no service {0:?} in the mesh; `weir get services` lists them")]
    NoService(String),
    /// Routes are there, but none takes this request.
    #[error("no route takes this request")]
    NoRoute,
    /// The path is known, but for other methods.
    #[error("the method is not allowed here; allowed: {0}")]
    MethodNotAllowed(String),
    /// The version has no instance, or none that may be tried again.
    #[error("no instance of {0} can take the request")]
    NoInstance(String),
    /// Every instance that was tried refused a connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, #[source] std::io::Error),
    /// The connection broke after the request was sent.
    #[error("the connection to {0} broke before an answer came: {1}")]
    Upstream(String, #[source] hyper::Error),
    /// The deadline of the request or route has passed.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The body did not arrive in time.
    #[error("the request's body did not arrive in time")]
    SlowBody,
    /// A request that cannot be turned into what the backend speaks.
    #[error("{0}")]
    BadRequest(String),
    /// A JSON request whose fields do not fit: a google.rpc.Status with details.
    #[error("{}", .0.message)]
    Fields(weir_proto::google::rpc::Status),
    /// The head is over a limit.
    #[error("the headers have more than {0} bytes in all")]
    HeadTooLarge(usize),
    /// The body is over a limit.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// Something that Weir does not do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The answer of the backend is no gRPC, or cannot be told as JSON.
    #[error("the answer of {0} cannot be passed on: {1}")]
    BadAnswer(String, String),
    /// Whose request it is is not known.
    #[error("{0}")]
    Unauthenticated(Box<Unauthenticated>),
    /// It may not.
    #[error("{0}")]
    Denied(Box<Denial>),
}

impl RouterError {
    /// The HTTP status (RFC 9110 §15).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoHost | Self::BadRequest(_) | Self::Fields(_) => StatusCode::BAD_REQUEST,
            Self::NoService(_) | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotReady | Self::NoInstance(_) | Self::Connect(..) | Self::Upstream(..) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::BadAnswer(..) => StatusCode::BAD_GATEWAY,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Denied(denial) => denial.status,
        }
    }

    /// The gRPC status code.
    #[must_use]
    pub fn grpc_code(&self) -> u8 {
        match self {
            Self::NoHost | Self::BadRequest(_) | Self::Fields(_) => grpc::INVALID_ARGUMENT,
            Self::NoService(_) | Self::NoRoute | Self::MethodNotAllowed(_) => grpc::UNIMPLEMENTED,
            Self::NotReady | Self::NoInstance(_) | Self::Connect(..) | Self::Upstream(..) => {
                grpc::UNAVAILABLE
            }
            Self::Timeout(_) | Self::SlowBody => grpc::DEADLINE_EXCEEDED,
            Self::TooLarge(_) | Self::HeadTooLarge(_) => grpc::RESOURCE_EXHAUSTED,
            Self::Unsupported(_) => grpc::UNIMPLEMENTED,
            Self::BadAnswer(..) => grpc::INTERNAL,
            Self::Unauthenticated(_) => grpc::UNAUTHENTICATED,
            Self::Denied(denial) => match denial.status {
                StatusCode::UNAUTHORIZED => grpc::UNAUTHENTICATED,
                _ => grpc::PERMISSION_DENIED,
            },
        }
    }

    /// The code in the JSON that HTTP clients get: the one whose HTTP status is
    /// [`RouterError::status`], where gRPC's own rules for the transport differ.
    #[must_use]
    pub fn json_code(&self) -> u8 {
        match self {
            Self::NoService(_) | Self::NoRoute => grpc::NOT_FOUND,
            _ => self.grpc_code(),
        }
    }

    /// The response flag of the access log; Envoy's words, which operators know.
    #[must_use]
    pub fn flag(&self) -> &'static str {
        match self {
            Self::NotReady => "NC",
            Self::NoHost | Self::NoService(_) | Self::NoRoute | Self::MethodNotAllowed(_) => "NR",
            Self::NoInstance(_) => "UH",
            Self::Connect(..) => "UF",
            Self::Upstream(..) => "UC",
            Self::Timeout(_) => "UT",
            Self::SlowBody
            | Self::BadRequest(_)
            | Self::Fields(_)
            | Self::TooLarge(_)
            | Self::HeadTooLarge(_)
            | Self::Unsupported(_) => "DPE",
            Self::BadAnswer(..) => "UPE",
            Self::Unauthenticated(_) => "JWT_AUTHN_ACCESS_DENIED",
            Self::Denied(denial) => denial.flag,
        }
    }

    /// All that is known, for logs; what [`std::fmt::Display`] shows is for clients.
    #[must_use]
    pub fn full(&self) -> String {
        match self {
            Self::Denied(denial) => denial.full.clone(),
            other => other.to_string(),
        }
    }
}
