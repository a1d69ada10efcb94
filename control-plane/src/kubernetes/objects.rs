//! What is known of the API server's objects, by kind, namespace and name.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

macro_rules! kinds {
    ($($name:ident $group:literal $version:literal $plural:literal $namespaced:literal $optional:literal,)*) => {
        /// A kind that is watched.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(
                #[doc = concat!("`", $group, "` `", $version, "` `", $plural, "`.")]
                $name,
            )*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// API group (empty: core), version and plural.
            #[must_use]
            pub fn resource(self) -> (&'static str, &'static str, &'static str) {
                match self {
                    $(Self::$name => ($group, $version, $plural),)*
                }
            }

            /// As documents write it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Whether its objects have a namespace.
            #[must_use]
            pub fn is_namespaced(self) -> bool {
                match self {
                    $(Self::$name => $namespaced,)*
                }
            }

            /// Whether a cluster may be without it (no such CRD).
            #[must_use]
            pub fn is_optional(self) -> bool {
                match self {
                    $(Self::$name => $optional,)*
                }
            }
        }
    };
}

kinds! {
    Namespace "" "v1" "namespaces" false false,
    Node "" "v1" "nodes" false false,
    Pod "" "v1" "pods" true false,
    Service "" "v1" "services" true false,
    Secret "" "v1" "secrets" true false,
    EndpointSlice "discovery.k8s.io" "v1" "endpointslices" true false,
    GatewayClass "gateway.networking.k8s.io" "v1" "gatewayclasses" false true,
    Gateway "gateway.networking.k8s.io" "v1" "gateways" true true,
    HTTPRoute "gateway.networking.k8s.io" "v1" "httproutes" true true,
    GRPCRoute "gateway.networking.k8s.io" "v1" "grpcroutes" true true,
    TCPRoute "gateway.networking.k8s.io" "v1alpha2" "tcproutes" true true,
    TLSRoute "gateway.networking.k8s.io" "v1" "tlsroutes" true true,
    ReferenceGrant "gateway.networking.k8s.io" "v1beta1" "referencegrants" true true,
    TrafficSplit "weir.dev" "v1alpha1" "trafficsplits" true true,
    BackendTrafficPolicy "weir.dev" "v1alpha1" "backendtrafficpolicies" true true,
    RateLimitPolicy "weir.dev" "v1alpha1" "ratelimitpolicies" true true,
    AuthorizationPolicy "weir.dev" "v1alpha1" "authorizationpolicies" true true,
    AuthenticationPolicy "weir.dev" "v1alpha1" "authenticationpolicies" true true,
    Rollout "weir.dev" "v1alpha1" "rollouts" true true,
    HTTPRouteFilter "weir.dev" "v1alpha1" "httproutefilters" true true,
}

/// Objects by kind, namespace (empty for those without) and name. As the API server
/// sends them, less what nobody reads (`managedFields`).
#[derive(Debug, Clone, Default)]
pub struct Objects {
    kinds: BTreeMap<Kind, BTreeMap<(String, String), Arc<Value>>>,
}

impl Objects {
    /// Puts one in, in place of an older one.
    pub fn put(&mut self, kind: Kind, object: Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (text("namespace"), text("name"));
        self.kinds.entry(kind).or_default().insert(key, Arc::new(object));
    }

    /// Takes one out.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        if let Some(objects) = self.kinds.get_mut(&kind) {
            objects.remove(&(namespace.to_owned(), name.to_owned()));
        }
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.kinds.get(&kind)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All of a kind, in order of namespace and name.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = (&str, &str, &Arc<Value>)> {
        let objects = self.kinds.get(&kind).into_iter().flatten();
        objects.map(|((namespace, name), object)| (namespace.as_str(), name.as_str(), object))
    }
}
