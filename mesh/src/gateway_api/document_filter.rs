//! Filters -> Gateway API document.

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::document::name;
use super::fields::FILTERS;
use crate::model::{
    Cors, HeaderModifier, Mirror, Names, PathModifier, Redirect, Rewrite, RouteFilter,
};

pub(super) fn filters(filters: &[RouteFilter]) -> Value {
    filters.iter().map(filter).collect()
}

fn filter(filter: &RouteFilter) -> Value {
    let kind = filter.type_name();
    let inner = match filter {
        RouteFilter::RequestHeaderModifier(m) | RouteFilter::ResponseHeaderModifier(m) => {
            header_modifier(m)
        }
        RouteFilter::RequestRedirect(redirect) => self::redirect(redirect),
        RouteFilter::UrlRewrite(rewrite) => self::rewrite(rewrite),
        RouteFilter::RequestMirror(mirror) => self::mirror(mirror),
        RouteFilter::Cors(cors) => self::cors(cors),
        RouteFilter::Extension { kind, name } => {
            json!({ "group": "weir.dev", "kind": **kind, "name": **name })
        }
    };
    let field = FILTERS.iter().find(|(name, _)| *name == kind).map_or("", |(_, field)| *field);
    json!({ "type": kind, field: inner })
}

fn header_modifier(modifier: &HeaderModifier) -> Value {
    let mut out = json!({});
    if !modifier.set.is_empty() {
        out["set"] = headers(&modifier.set);
    }
    if !modifier.add.is_empty() {
        out["add"] = headers(&modifier.add);
    }
    if !modifier.remove.is_empty() {
        out["remove"] = modifier.remove.iter().map(HeaderName::as_str).collect();
    }
    out
}

fn headers(headers: &[(HeaderName, HeaderValue)]) -> Value {
    let pair = |(name, value): &(HeaderName, HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        json!({ "name": name.as_str(), "value": value })
    };
    headers.iter().map(pair).collect()
}

fn path(path: &PathModifier) -> Value {
    match path {
        PathModifier::Full(path) => json!({ "type": "ReplaceFullPath", "replaceFullPath": **path }),
        PathModifier::Prefix(path) => {
            let path = if path.is_empty() { "/" } else { &**path };
            json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": path })
        }
    }
}

fn redirect(redirect: &Redirect) -> Value {
    let mut out = json!({ "statusCode": redirect.status });
    if let Some(scheme) = redirect.scheme {
        out["scheme"] = scheme.as_str().into();
    }
    if let Some(hostname) = &redirect.hostname {
        out["hostname"] = (**hostname).into();
    }
    if let Some(modifier) = &redirect.path {
        out["path"] = path(modifier);
    }
    if let Some(port) = redirect.port {
        out["port"] = port.get().into();
    }
    out
}

fn rewrite(rewrite: &Rewrite) -> Value {
    let mut out = json!({});
    if let Some(hostname) = &rewrite.hostname {
        out["hostname"] = (**hostname).into();
    }
    if let Some(modifier) = &rewrite.path {
        out["path"] = path(modifier);
    }
    out
}

fn mirror(mirror: &Mirror) -> Value {
    let name = name(&mirror.service, mirror.version.as_ref());
    let mut out = json!({ "backendRef": { "name": name } });
    if let Some(fraction) = mirror.fraction {
        out["fraction"] = json!({
            "numerator": fraction.numerator,
            "denominator": fraction.denominator,
        });
    }
    out
}

fn cors(cors: &Cors) -> Value {
    fn names<T: ToString>(out: &mut Value, field: &str, names: &Names<T>) {
        match names {
            Names::Any => out[field] = json!(["*"]),
            Names::These(names) if names.is_empty() => {}
            Names::These(names) => out[field] = names.iter().map(ToString::to_string).collect(),
        }
    }
    let mut out = json!({ "maxAge": cors.max_age });
    if !cors.allow_origins.is_empty() {
        out["allowOrigins"] = cors.allow_origins.iter().map(ToString::to_string).collect();
    }
    if cors.allow_credentials {
        out["allowCredentials"] = true.into();
    }
    names(&mut out, "allowMethods", &cors.allow_methods);
    names(&mut out, "allowHeaders", &cors.allow_headers);
    names(&mut out, "exposeHeaders", &cors.expose_headers);
    out
}
