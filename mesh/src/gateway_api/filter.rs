//! Filters of rules and of backendRefs.

use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::fields;
use super::matches::{header_name, name_value};
use super::reader::{Object, join, near, text};
use super::rule::{Services, one_of, target};
use crate::model::{
    Cors, Fraction, HeaderModifier, HostPattern, Mirror, Names, OriginPattern, PathModifier,
    Redirect, Rewrite, RouteFilter, RouteKind, Scheme, Violations, is_path, is_path_value,
};

/// Most origins and names of a CORS filter's lists; the Gateway API's own limit.
const CORS_LIST: usize = 64;

/// Whose filters are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub kind: RouteKind,
    /// Of a rule; else of a backendRef.
    pub of_rule: bool,
}

impl Place {
    fn filters(self) -> &'static [(&'static str, &'static str)] {
        match self.kind {
            RouteKind::Http => &fields::FILTERS,
            RouteKind::Grpc => &fields::FILTERS[..fields::GRPC_FILTERS],
        }
    }
}

pub(super) fn filters(
    object: &Object<'_>,
    place: Place,
    services: Services<'_>,
    bad: &mut Violations,
) -> Vec<RouteFilter> {
    let list = object.list("filters", bad);
    list.iter().filter_map(|(at, value)| filter(value, at, place, services, bad)).collect()
}

fn filter(
    value: &Value,
    at: &str,
    place: Place,
    services: Services<'_>,
    bad: &mut Violations,
) -> Option<RouteFilter> {
    let object = Object::open(value, at, bad)?;
    let given = object.required("type", bad)?;
    let found = place.filters().iter().find(|(name, _)| *name == given);
    let Some((_, field)) = found else {
        bad.add(object.path("type"), unknown(given, place));
        return None;
    };
    if given == "ExtensionRef" && !place.of_rule {
        let why = "ExtensionRef belongs to the rule; in a backendRef it is not supported";
        bad.add(object.path("type"), why);
        return None;
    }
    if given == "CORS" && !place.of_rule {
        let why = "CORS belongs to the rule: a preflight comes before any backend is chosen";
        bad.add(object.path("type"), why);
        return None;
    }
    let all = fields::FILTERS.iter().chain(&fields::OTHER_FILTERS);
    let others: Vec<&str> = all.map(|(_, other)| *other).filter(|other| other != field).collect();
    let why = format!("does not belong to a filter of type {given}");
    object.check_or(&["type", field], &others, &why, bad);
    let inner = object.required_object(field, bad)?;
    Some(match given {
        "RequestHeaderModifier" => RouteFilter::RequestHeaderModifier(header_modifier(&inner, bad)),
        "ResponseHeaderModifier" => {
            RouteFilter::ResponseHeaderModifier(header_modifier(&inner, bad))
        }
        "RequestMirror" => RouteFilter::RequestMirror(mirror(&inner, services, bad)?),
        "RequestRedirect" => RouteFilter::RequestRedirect(redirect(&inner, bad)),
        "URLRewrite" => {
            inner.check(&fields::REWRITE, &[], bad);
            let hostname = hostname(&inner, bad);
            let path = inner.object("path", bad).and_then(|p| path_modifier(&p, bad));
            RouteFilter::UrlRewrite(Rewrite { hostname, path })
        }
        "CORS" => RouteFilter::Cors(cors(&inner, bad)),
        _ => extension(&inner, bad)?,
    })
}

fn unknown(given: &str, place: Place) -> String {
    let known = || place.filters().iter().map(|(name, _)| *name);
    if fields::OTHER_FILTERS.iter().any(|(name, _)| *name == given) {
        return format!("{given} is not supported yet");
    }
    if fields::FILTERS.iter().any(|(name, _)| *name == given) {
        return format!("{given} is for an HTTPRoute; a GRPCRoute has no such filter");
    }
    match near(given, known()) {
        Some(near) => format!("{given:?} is not known; did you mean {near}?"),
        None => {
            format!("{given:?} is not known; there are: {}", known().collect::<Vec<_>>().join(", "))
        }
    }
}

fn header_modifier(object: &Object<'_>, bad: &mut Violations) -> HeaderModifier {
    object.check(&fields::MODIFIER, &[], bad);
    let set = header_pairs(&object.list("set", bad), bad);
    let add = header_pairs(&object.list("add", bad), bad);
    let mut remove = Vec::new();
    for (at, value) in object.list("remove", bad) {
        if let Some(name) = text(value, &at, bad) {
            remove.extend(bad.take(&at, header_name(name)));
        }
    }
    HeaderModifier { set, add, remove }
}

fn header_pairs(list: &[(String, &Value)], bad: &mut Violations) -> Vec<(HeaderName, HeaderValue)> {
    let mut pairs: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (at, value) in list {
        let Some(object) = Object::open(value, at, bad) else { continue };
        object.check(&fields::VALUE, &[], bad);
        let Some((name, value)) = name_value(&object, bad) else { continue };
        let name = bad.take(&join(at, "name"), header_name(name));
        let value = HeaderValue::from_str(value).map_err(|_| "has a character no header may hold");
        let value = bad.take(&join(at, "value"), value);
        let Some((name, value)) = name.zip(value) else { continue };
        if pairs.iter().any(|(other, _)| *other == name) {
            bad.add(join(at, "name"), format_args!("{name} is here twice"));
        }
        pairs.push((name, value));
    }
    pairs
}

fn hostname(object: &Object<'_>, bad: &mut Violations) -> Option<Arc<str>> {
    let text = object.text("hostname", bad)?;
    match HostPattern::parse(text) {
        Ok(HostPattern::Exact(name)) => Some(name),
        _ => {
            let why = format!("{text:?} is not a precise host name, such as shop.example.com");
            bad.add(object.path("hostname"), why);
            None
        }
    }
}

fn path_modifier(object: &Object<'_>, bad: &mut Violations) -> Option<PathModifier> {
    if object.get("type").is_none() {
        bad.add(object.path("type"), "is missing");
        return None;
    }
    let given = one_of(object, "type", &fields::PATH_MODIFIER_TYPES, bad)?;
    let (field, other) = match given {
        "ReplaceFullPath" => ("replaceFullPath", "replacePrefixMatch"),
        _ => ("replacePrefixMatch", "replaceFullPath"),
    };
    let why = format!("does not belong to a path of type {given}");
    object.check_or(&["type", field], &[other], &why, bad);
    if object.get(field).is_none() {
        bad.add(object.path(field), "is missing");
    }
    let path = object.text(field, bad)?;
    let full = field == "replaceFullPath";
    if path.len() > 1024 {
        let why = format!("has {} characters; at most 1024 are possible", path.len());
        bad.add(object.path(field), why);
        return None;
    }
    if !(is_path(path) || (path.is_empty() && !full)) {
        let why = match is_path_value(path) {
            true => "does not begin with '/'",
            false => "has a character that no path may hold",
        };
        bad.add(object.path(field), format_args!("{path:?} {why}"));
        return None;
    }
    Some(match full {
        true => PathModifier::Full(path.into()),
        false => PathModifier::Prefix(path.trim_end_matches('/').into()),
    })
}

fn redirect(object: &Object<'_>, bad: &mut Violations) -> Redirect {
    object.check(&fields::REDIRECT, &[], bad);
    let scheme = one_of(object, "scheme", &["http", "https"], bad).map(|scheme| match scheme {
        "https" => Scheme::Https,
        _ => Scheme::Http,
    });
    let hostname = hostname(object, bad);
    let path = object.object("path", bad).and_then(|p| path_modifier(&p, bad));
    let port = object.integer("port", bad).and_then(|port| {
        let number = u16::try_from(port).ok().and_then(NonZeroU16::new);
        if number.is_none() {
            bad.add(object.path("port"), format_args!("{port} is not from 1 to 65535"));
        }
        number
    });
    let status = object.integer("statusCode", bad).and_then(|code| {
        let status = u16::try_from(code).ok().filter(|code| Redirect::STATUSES.contains(code));
        if status.is_none() {
            let why = format!("{code} is not one of 301, 302, 303, 307, 308");
            bad.add(object.path("statusCode"), why);
        }
        status
    });
    Redirect { scheme, hostname, path, port, status: status.unwrap_or(302) }
}

fn mirror(object: &Object<'_>, services: Services<'_>, bad: &mut Violations) -> Option<Mirror> {
    object.check(&fields::MIRROR, &[], bad);
    let backend = object.required_object("backendRef", bad);
    let backend = backend.and_then(|backend| {
        backend.check(&fields::OBJECT_REF, &[], bad);
        target(&backend, services, bad)
    });
    if object.get("percent").is_some() && object.get("fraction").is_some() {
        bad.add(object.path("fraction"), "cannot be beside percent; keep one of them");
    }
    let percent = object.integer("percent", bad).and_then(|percent| {
        let numerator = u32::try_from(percent).ok().filter(|percent| *percent <= 100);
        if numerator.is_none() {
            bad.add(object.path("percent"), format_args!("{percent} is not from 0 to 100"));
        }
        Some(Fraction { numerator: numerator?, denominator: 100 })
    });
    let fraction = object.object("fraction", bad).and_then(|f| fraction(&f, bad));
    let (service, version) = backend?.ok()?;
    Some(Mirror { service, version, fraction: percent.or(fraction) })
}

fn fraction(object: &Object<'_>, bad: &mut Violations) -> Option<Fraction> {
    object.check(&fields::FRACTION, &[], bad);
    if object.get("numerator").is_none() {
        bad.add(object.path("numerator"), "is missing");
    }
    let numerator = object.integer("numerator", bad);
    let denominator = match object.get("denominator") {
        None => Some(100),
        Some(_) => object.integer("denominator", bad),
    };
    let (numerator, denominator) = numerator.zip(denominator)?;
    if denominator < 1 || denominator > i64::from(i32::MAX) {
        bad.add(
            object.path("denominator"),
            format_args!("{denominator} is not from 1 to {}", i32::MAX),
        );
        return None;
    }
    if !(0..=denominator).contains(&numerator) {
        let why = format!("{numerator} is not from 0 to {denominator}, the denominator");
        bad.add(object.path("numerator"), why);
        return None;
    }
    let part = |number: i64| u32::try_from(number).ok();
    Some(Fraction { numerator: part(numerator)?, denominator: part(denominator)? })
}

fn cors(object: &Object<'_>, bad: &mut Violations) -> Cors {
    object.check(&fields::CORS, &[], bad);
    let origins = object.list("allowOrigins", bad);
    limit(&origins, object, "allowOrigins", bad);
    let mut allow_origins = Vec::new();
    for (at, value) in &origins {
        let Some(origin) = text(value, at, bad) else { continue };
        let Some(origin) = bad.take(at, OriginPattern::parse(origin)) else { continue };
        if origin == OriginPattern::Any && origins.len() > 1 {
            bad.add(&**at, "\"*\" cannot be beside other origins");
        }
        allow_origins.push(origin);
    }
    let allow_credentials = match object.get("allowCredentials") {
        None => false,
        Some(Value::Bool(allow)) => *allow,
        Some(_) => {
            bad.add(object.path("allowCredentials"), "must be true or false");
            false
        }
    };
    let max_age = object.integer("maxAge", bad).and_then(|age| {
        let seconds = i32::try_from(age).ok().and_then(|age| u32::try_from(age).ok());
        let seconds = seconds.filter(|age| *age > 0);
        if seconds.is_none() {
            let why = format!("{age} is not from 1 to {}, in seconds", i32::MAX);
            bad.add(object.path("maxAge"), why);
        }
        seconds
    });
    let method = |name: &str| {
        let known = super::METHODS.iter().any(|method| method.as_str() == name);
        known.then_some(()).ok_or_else(|| format!("{name:?} is not a method, such as GET"))
    };
    let header = |name: &str| header_name(name).map(drop);
    Cors {
        allow_origins,
        allow_credentials,
        allow_methods: names::<Method>(object, "allowMethods", method, bad),
        allow_headers: names::<HeaderName>(object, "allowHeaders", header, bad),
        expose_headers: names::<HeaderName>(object, "exposeHeaders", header, bad),
        max_age: max_age.unwrap_or(Cors::MAX_AGE),
    }
}

fn limit(list: &[(String, &Value)], object: &Object<'_>, field: &str, bad: &mut Violations) {
    if list.len() > CORS_LIST {
        let why = format!("are {}; at most {CORS_LIST} are possible", list.len());
        bad.add(object.path(field), why);
    }
}

fn names<T: FromStr>(
    object: &Object<'_>,
    field: &str,
    check: impl Fn(&str) -> Result<(), String>,
    bad: &mut Violations,
) -> Names<T> {
    let list = object.list(field, bad);
    limit(&list, object, field, bad);
    let mut names = Vec::new();
    let mut any = false;
    for (at, value) in &list {
        let Some(name) = text(value, at, bad) else { continue };
        if name == "*" {
            any = true;
            if list.len() > 1 {
                bad.add(&**at, "\"*\" cannot be beside others");
            }
            continue;
        }
        if bad.take(at, check(name)).is_some() {
            names.extend(name.parse().ok());
        }
    }
    if any { Names::Any } else { Names::These(names) }
}

fn extension(object: &Object<'_>, bad: &mut Violations) -> Option<RouteFilter> {
    object.check(&fields::EXTENSION, &[], bad);
    let group = object.required("group", bad);
    if let Some(group) = group
        && group != "weir.dev"
    {
        bad.add(object.path("group"), format_args!("{group:?} is not known; use weir.dev"));
    }
    let kind = object.required("kind", bad);
    if let Some(kind) = kind
        && kind != fields::EXTENSION_KIND
    {
        let why = format!("{kind:?} is not known; use {}", fields::EXTENSION_KIND);
        bad.add(object.path("kind"), why);
    }
    let (kind, name) = kind.zip(object.required("name", bad))?;
    Some(RouteFilter::Extension { kind: kind.into(), name: name.into() })
}
