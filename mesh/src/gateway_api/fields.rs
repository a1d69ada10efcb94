//! The fields that objects of routes have: what the parser knows, and what the
//! schema says.

pub(super) const DOCUMENT: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
pub(super) const METADATA: [&str; 4] = ["name", "namespace", "labels", "annotations"];
pub(super) const SPEC: [&str; 3] = ["parentRefs", "hostnames", "rules"];
pub(super) const PARENT_REF: [&str; 5] = ["group", "kind", "name", "namespace", "port"];
/// Of both kinds: `timeouts` and `retry` of a GRPCRoute are Weir's addition.
pub(super) const RULE: [&str; 7] =
    ["name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence"];
pub(super) const TIMEOUTS: [&str; 2] = ["request", "backendRequest"];
pub(super) const RETRY: [&str; 3] = ["codes", "attempts", "backoff"];
pub(super) const SESSION: [&str; 5] =
    ["sessionName", "absoluteTimeout", "idleTimeout", "type", "cookieConfig"];
pub(super) const COOKIE: [&str; 1] = ["lifetimeType"];
pub(super) const HTTP_MATCH: [&str; 4] = ["path", "headers", "queryParams", "method"];
pub(super) const GRPC_MATCH: [&str; 2] = ["method", "headers"];
pub(super) const PATH: [&str; 2] = ["type", "value"];
pub(super) const GRPC_METHOD: [&str; 3] = ["type", "service", "method"];
pub(super) const TYPED_VALUE: [&str; 3] = ["type", "name", "value"];
pub(super) const VALUE: [&str; 2] = ["name", "value"];
pub(super) const MODIFIER: [&str; 3] = ["set", "add", "remove"];
pub(super) const REDIRECT: [&str; 5] = ["scheme", "hostname", "path", "port", "statusCode"];
pub(super) const REWRITE: [&str; 2] = ["hostname", "path"];
pub(super) const PATH_MODIFIER: [&str; 3] = ["type", "replaceFullPath", "replacePrefixMatch"];
pub(super) const MIRROR: [&str; 3] = ["backendRef", "percent", "fraction"];
pub(super) const FRACTION: [&str; 2] = ["numerator", "denominator"];
pub(super) const OBJECT_REF: [&str; 5] = ["group", "kind", "name", "namespace", "port"];
pub(super) const CORS: [&str; 6] =
    ["allowOrigins", "allowCredentials", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge"];
pub(super) const EXTENSION: [&str; 3] = ["group", "kind", "name"];
pub(super) const BACKEND_REF: [&str; 7] =
    ["group", "kind", "name", "namespace", "port", "weight", "filters"];

pub(super) const PATH_TYPES: [&str; 3] = ["PathPrefix", "Exact", "RegularExpression"];
pub(super) const VALUE_TYPES: [&str; 2] = ["Exact", "RegularExpression"];
pub(super) const PATH_MODIFIER_TYPES: [&str; 2] = ["ReplaceFullPath", "ReplacePrefixMatch"];

/// Filters by `type` and the field that goes with it; those that a GRPCRoute has
/// come first.
pub(super) const FILTERS: [(&str, &str); 7] = [
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestMirror", "requestMirror"),
    ("ExtensionRef", "extensionRef"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("CORS", "cors"),
];
/// How many of [`FILTERS`] a GRPCRoute has.
pub(super) const GRPC_FILTERS: usize = 4;
/// Those of the Gateway API that Weir does not have.
pub(super) const OTHER_FILTERS: [(&str, &str); 1] = [("ExternalAuth", "externalAuth")];
/// The kind that an ExtensionRef may name.
pub(super) const EXTENSION_KIND: &str = "HTTPRouteFilter";
