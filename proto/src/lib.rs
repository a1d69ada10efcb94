//! Weir's protobuf schemas and the types generated from them.
//!
//! Nothing here is written by hand but this list. The `.proto` files beside it
//! are the single source for gRPC, JSON over HTTP and OpenAPI alike.

// Generated code cannot keep them.
#![allow(missing_docs, clippy::all, unused_qualifications)]

/// Includes the code generated for one package.
macro_rules! package {
    ($name:literal) => {
        tonic::include_proto!($name);
    };
}

/// `weir.*`
pub mod weir {
    /// `weir.mesh`
    pub mod mesh {
        /// What routers and the control plane say to each other.
        pub mod v1 {
            package!("weir.mesh.v1");
        }
    }
    /// `weir.control`
    pub mod control {
        /// The control-plane API.
        pub mod v1 {
            package!("weir.control.v1");
        }
    }
    /// `weir.auth`
    pub mod auth {
        /// Accounts, tokens and keys.
        pub mod v1 {
            package!("weir.auth.v1");
        }
    }
    /// `weir.users`
    pub mod users {
        /// Profiles and preferences.
        pub mod v1 {
            package!("weir.users.v1");
        }
    }
    /// `weir.products`
    pub mod products {
        /// The catalogue.
        pub mod v1 {
            package!("weir.products.v1");
        }
    }
    /// `weir.notifications`
    pub mod notifications {
        /// Messages to users.
        pub mod v1 {
            package!("weir.notifications.v1");
        }
    }
}

/// `google.*`
pub mod google {
    /// `google.api`
    pub mod api {
        package!("google.api");
    }
    /// `google.rpc`: the error model.
    pub mod rpc {
        package!("google.rpc");
    }
}

/// `envoy.*`
pub mod envoy {
    /// `envoy.service`
    pub mod service {
        /// `envoy.service.auth`
        pub mod auth {
            /// The part of external authorization that Weir uses.
            pub mod v3 {
                package!("envoy.service.auth.v3");
            }
        }
    }
}

/// The part of OTLP that carries spans (`opentelemetry.proto.collector.trace.v1`).
pub mod otlp {
    package!("opentelemetry.proto.collector.trace.v1");
}

/// Serialized `google.protobuf.FileDescriptorSet`s, options and comments included.
pub mod descriptors {
    /// `weir.control.v1`
    pub const CONTROL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/control.fds"));
    /// `weir.mesh.v1`
    pub const MESH: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mesh.fds"));
    /// `weir.auth.v1`
    pub const AUTH: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/auth.fds"));
    /// `weir.users.v1`
    pub const USERS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/users.fds"));
    /// `weir.products.v1`
    pub const PRODUCTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/products.fds"));
    /// `weir.notifications.v1`
    pub const NOTIFICATIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/notifications.fds"));

    /// The set of a service that ships with Weir.
    #[must_use]
    pub fn of(service: &str) -> Option<&'static [u8]> {
        match service {
            "auth" => Some(AUTH),
            "users" => Some(USERS),
            "products" => Some(PRODUCTS),
            "notifications" => Some(NOTIFICATIONS),
            _ => None,
        }
    }
}
