//! Protobuf -> model: filters of routes.

use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use weir_proto::weir::mesh::v1 as pb;

use super::decode::join;
use super::decode_route::header_name;
use crate::model::{
    Cors, Fraction, HeaderModifier, HostPattern, Mirror, Names, OriginPattern, PathModifier,
    Redirect, Rewrite, RouteFilter, Scheme, Violations, is_path, is_path_value,
};

/// The filters of what is at `at`.
pub(super) fn filters(
    messages: &[pb::RouteFilter],
    at: &str,
    bad: &mut Violations,
) -> Vec<RouteFilter> {
    let mut filters = Vec::with_capacity(messages.len());
    for (i, message) in messages.iter().enumerate() {
        filters.extend(filter(message, &join(at, &format!("filters[{i}]")), bad));
    }
    filters
}

fn filter(message: &pb::RouteFilter, at: &str, bad: &mut Violations) -> Option<RouteFilter> {
    use pb::route_filter::Filter;
    Some(match &message.filter {
        Some(Filter::RequestHeaderModifier(m)) => RouteFilter::RequestHeaderModifier(
            header_modifier(m, &join(at, "requestHeaderModifier"), bad),
        ),
        Some(Filter::ResponseHeaderModifier(m)) => RouteFilter::ResponseHeaderModifier(
            header_modifier(m, &join(at, "responseHeaderModifier"), bad),
        ),
        Some(Filter::RequestRedirect(m)) => {
            RouteFilter::RequestRedirect(redirect(m, &join(at, "requestRedirect"), bad)?)
        }
        Some(Filter::UrlRewrite(m)) => {
            let at = join(at, "urlRewrite");
            let hostname = hostname(&m.hostname, &at, bad);
            let path = m.path.as_ref().and_then(|p| path_modifier(p, &join(&at, "path"), bad));
            RouteFilter::UrlRewrite(Rewrite { hostname, path })
        }
        Some(Filter::RequestMirror(m)) => {
            RouteFilter::RequestMirror(mirror(m, &join(at, "requestMirror"), bad)?)
        }
        Some(Filter::Cors(m)) => RouteFilter::Cors(cors(m, &join(at, "cors"), bad)),
        Some(Filter::ExtensionRef(m)) => {
            if m.kind.is_empty() || m.name.is_empty() {
                bad.add(join(at, "extensionRef"), "needs a kind and a name");
            }
            RouteFilter::Extension { kind: m.kind.as_str().into(), name: m.name.as_str().into() }
        }
        None => {
            let known = "requestHeaderModifier, responseHeaderModifier, requestRedirect, \
                         urlRewrite, requestMirror, cors or extensionRef";
            bad.add(at, format_args!("is empty; set {known}"));
            return None;
        }
    })
}

fn hostname(text: &str, at: &str, bad: &mut Violations) -> Option<Arc<str>> {
    if text.is_empty() {
        return None;
    }
    match HostPattern::parse(text) {
        Ok(HostPattern::Exact(name)) => Some(name),
        _ => {
            bad.add(join(at, "hostname"), format_args!("{text:?} is not a precise host name"));
            None
        }
    }
}

fn path_modifier(
    message: &pb::PathModifier,
    at: &str,
    bad: &mut Violations,
) -> Option<PathModifier> {
    use pb::path_modifier::Path;
    match &message.path {
        Some(Path::ReplaceFullPath(path)) if is_path(path) => {
            Some(PathModifier::Full(path.as_str().into()))
        }
        Some(Path::ReplacePrefixMatch(path)) if path.is_empty() || is_path(path) => {
            Some(PathModifier::Prefix(path.trim_end_matches('/').into()))
        }
        Some(Path::ReplaceFullPath(path) | Path::ReplacePrefixMatch(path)) => {
            let why = match is_path_value(path) {
                true => "does not begin with '/'",
                false => "has a character that no path may hold",
            };
            bad.add(at, format_args!("{path:?} {why}"));
            None
        }
        None => {
            bad.add(at, "is empty; set replaceFullPath or replacePrefixMatch");
            None
        }
    }
}

fn redirect(message: &pb::RequestRedirect, at: &str, bad: &mut Violations) -> Option<Redirect> {
    let scheme = match message.scheme.as_str() {
        "" => None,
        "http" => Some(Scheme::Http),
        "https" => Some(Scheme::Https),
        other => {
            bad.add(join(at, "scheme"), format_args!("{other:?} is not known; use http or https"));
            None
        }
    };
    let hostname = hostname(&message.hostname, at, bad);
    let path = message.path.as_ref().and_then(|p| path_modifier(p, &join(at, "path"), bad));
    let port = u16::try_from(message.port).map(NonZeroU16::new);
    let port = port.map_err(|_| format!("{} is not from 1 to 65535", message.port));
    let port = bad.take(&join(at, "port"), port)?;
    let status = match message.status_code {
        0 => 302,
        code => match u16::try_from(code).ok().filter(|c| Redirect::STATUSES.contains(c)) {
            Some(code) => code,
            None => {
                let why = format!("{code} is not one of 301, 302, 303, 307, 308");
                bad.add(join(at, "statusCode"), why);
                return None;
            }
        },
    };
    Some(Redirect { scheme, hostname, path, port, status })
}

fn mirror(message: &pb::RequestMirror, at: &str, bad: &mut Violations) -> Option<Mirror> {
    let service = bad.take(&join(at, "service"), message.service.parse());
    let version = match message.version.as_str() {
        "" => Some(None),
        name => bad.take(&join(at, "version"), name.parse()).map(Some),
    };
    let fraction = match &message.fraction {
        None => None,
        Some(f) if f.denominator > 0 && f.numerator <= f.denominator => {
            Some(Fraction { numerator: f.numerator, denominator: f.denominator })
        }
        Some(f) => {
            let why = format!("{} of {} is not from 0 to 1", f.numerator, f.denominator);
            bad.add(join(at, "fraction"), why);
            None
        }
    };
    service.zip(version).map(|(service, version)| Mirror { service, version, fraction })
}

fn cors(message: &pb::Cors, at: &str, bad: &mut Violations) -> Cors {
    let mut allow_origins = Vec::new();
    for (i, text) in message.allow_origins.iter().enumerate() {
        let at = join(at, &format!("allowOrigins[{i}]"));
        allow_origins.extend(bad.take(&at, OriginPattern::parse(text)));
    }
    Cors {
        allow_origins,
        allow_credentials: message.allow_credentials,
        allow_methods: names::<Method>(&message.allow_methods, &join(at, "allowMethods"), bad),
        allow_headers: names::<HeaderName>(&message.allow_headers, &join(at, "allowHeaders"), bad),
        expose_headers: names::<HeaderName>(
            &message.expose_headers,
            &join(at, "exposeHeaders"),
            bad,
        ),
        max_age: if message.max_age == 0 { Cors::MAX_AGE } else { message.max_age },
    }
}

fn names<T: FromStr>(texts: &[String], at: &str, bad: &mut Violations) -> Names<T> {
    if matches!(texts, [one] if one == "*") {
        return Names::Any;
    }
    let mut names = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let name = text.parse().map_err(|_| format!("{text:?} cannot be here"));
        names.extend(bad.take(&format!("{at}[{i}]"), name));
    }
    Names::These(names)
}

fn header_modifier(message: &pb::HeaderModifier, at: &str, bad: &mut Violations) -> HeaderModifier {
    let set = name_values(&message.set, &join(at, "set"), bad);
    let add = name_values(&message.add, &join(at, "add"), bad);
    let mut remove = Vec::new();
    for (i, name) in message.remove.iter().enumerate() {
        remove.extend(bad.take(&join(at, &format!("remove[{i}]")), header_name(name)));
    }
    HeaderModifier { set, add, remove }
}

fn name_values(
    messages: &[pb::NameValue],
    at: &str,
    bad: &mut Violations,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut pairs = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let name = bad.take(&format!("{at}[{i}].name"), header_name(&message.name));
        let value = HeaderValue::from_str(&message.value)
            .map_err(|_| "has a character that no header may hold");
        let value = bad.take(&format!("{at}[{i}].value"), value);
        if message.regex {
            bad.add(format!("{at}[{i}].regex"), "is for matches; a header is set to a value");
        }
        pairs.extend(name.zip(value));
    }
    pairs
}
