//! Why a request got no answer from its backend, and what its client is told.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::auth::{Denial, Unauthenticated};
use crate::request::limit::TooOften;

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
    /// The backend whose turn it is cannot be used: rule, and why.
    #[error("a backend of {0} cannot be used: {1}; the route needs another one")]
    InvalidBackend(String, String),
    /// The version has no instance, or none that may be tried again.
    #[error("no instance of {0} can take the request")]
    NoInstance(String),
    /// Every instance that was tried refused a connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, #[source] std::io::Error),
    /// The connection broke after the request was sent.
    #[error("the connection to {0} broke before an answer came: {1}")]
    Upstream(String, #[source] hyper::Error),
    /// A limit of the service, or the queue before it, is full.
    #[error("{0}")]
    Overflow(String),
    /// This router has too much to do.
    #[error("this router is overloaded: {0}; try again later")]
    Overloaded(&'static str),
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
    /// A host outside that may not be reached.
    #[error("{0}")]
    Egress(crate::tcp::egress::Denied),
    /// A host outside whose name leads nowhere.
    #[error("{0}")]
    Lookup(String),
    /// Something that Weir does not do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A rate limit is used up.
    #[error("{0}")]
    TooOften(Box<TooOften>),
    /// A rate limit's store cannot be asked, and its policy says Closed.
    #[error(
        "rate limit {0} cannot be asked: its store is away, and onFailure is Closed; try again"
    )]
    NoCounts(Arc<str>),
    /// Harm done on purpose.
    #[error("this fault is injected by HTTPRouteFilter {filter:?}")]
    Injected {
        /// By which filter.
        filter: Arc<str>,
        /// What HTTP clients get.
        status: StatusCode,
        /// What gRPC clients get.
        grpc: u8,
    },
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
            Self::Egress(_) => StatusCode::FORBIDDEN,
            Self::Lookup(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            // What came was no HTTP: asking again would bring the same.
            Self::Upstream(_, error) if error.is_parse() => StatusCode::BAD_GATEWAY,
            // As the Gateway API has it, for HTTP and for gRPC.
            Self::InvalidBackend(..) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotReady
            | Self::NoInstance(_)
            | Self::Connect(..)
            | Self::Upstream(..)
            | Self::Overflow(_)
            | Self::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoCounts(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Injected { status, .. } => *status,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
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
            Self::NotReady
            | Self::InvalidBackend(..)
            | Self::NoInstance(_)
            | Self::Connect(..)
            | Self::Upstream(..)
            | Self::Overflow(_)
            | Self::Overloaded(_) => grpc::UNAVAILABLE,
            Self::Injected { grpc, .. } => *grpc,
            Self::NoCounts(_) => grpc::UNAVAILABLE,
            Self::Timeout(_) | Self::SlowBody => grpc::DEADLINE_EXCEEDED,
            Self::TooOften(_) | Self::TooLarge(_) | Self::HeadTooLarge(_) => {
                grpc::RESOURCE_EXHAUSTED
            }
            Self::Unsupported(_) => grpc::UNIMPLEMENTED,
            Self::Egress(_) => grpc::PERMISSION_DENIED,
            Self::Lookup(_) => grpc::UNAVAILABLE,
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
            Self::InvalidBackend(..) => grpc::INTERNAL,
            _ => self.grpc_code(),
        }
    }

    /// The response flag of the access log; Envoy's words, which operators know.
    #[must_use]
    pub fn flag(&self) -> &'static str {
        match self {
            Self::NotReady | Self::InvalidBackend(..) => "NC",
            Self::NoHost | Self::NoService(_) | Self::NoRoute | Self::MethodNotAllowed(_) => "NR",
            Self::NoInstance(_) => "UH",
            Self::Egress(_) => "ED",
            Self::Lookup(_) => "DF",
            Self::Connect(..) => "UF",
            Self::Upstream(_, error) if error.is_parse() => "UPE",
            Self::Upstream(..) => "UC",
            Self::Injected { .. } => "FI",
            Self::TooOften(_) => "RL",
            Self::NoCounts(_) => "RLSE",
            Self::Overflow(_) => "UO",
            Self::Overloaded(_) => "OM",
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
