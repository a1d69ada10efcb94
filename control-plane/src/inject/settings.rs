//! What one pod gets: the injector's defaults and the pod's annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};
use weir_cni::{Cidr, PortRange, Redirection, list};
use weir_mesh::model::Violations;

use super::config::{AccessLog, InjectConfig, LogLevel, Redirect};
use super::quantity::Quantity;
use super::{INJECT, INJECTED, PREFIX};

/// Variables that the injector works out itself.
const OWN_VARIABLES: [&str; 19] = [
    "WEIR_PLATFORM",
    "WEIR_ROLE",
    "WEIR_SERVICE",
    "WEIR_VERSION",
    "WEIR_INSTANCE_ID",
    "WEIR_POD_NAME",
    "WEIR_POD_IP",
    "WEIR_NAMESPACE",
    "WEIR_CONTROL_MESH",
    "WEIR_TRUST_BUNDLE",
    "WEIR_JOIN_TOKEN_FILE",
    "WEIR_STATE_DIR",
    "WEIR_TRUST_DOMAIN",
    "WEIR_TRANSPARENT",
    "WEIR_LOG",
    "WEIR_ACCESS_LOG",
    "WEIR_OPAQUE_PORTS",
    "WEIR_PROBES",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Annotations of pods that are not settings.
const OTHERS: [&str; 3] = [INJECT, INJECTED, REDIRECT_ARGUMENTS];

/// Ports that one pod may have as opaque.
const MAX_OPAQUE_PORTS: usize = 256;

/// Annotation of injected pods with the arguments of `weir-cni redirect`: for the CNI
/// plugin, and for the control plane, which learns from it what a pod's router takes.
pub const REDIRECT_ARGUMENTS: &str = "weir.dev/redirect-arguments";

/// Annotation with how connections of a pod come to its router.
pub const REDIRECT_MODE: &str = "weir.dev/redirect";

/// What one pod gets.
#[derive(Debug)]
pub struct Settings<'a> {
    /// What annotations do not change.
    pub config: &'a InjectConfig,
    pub router_image: String,
    pub redirect: Redirect,
    pub log_level: LogLevel,
    pub access_log: AccessLog,
    pub trace_endpoint: Option<String>,
    pub skip_outbound_ports: Vec<PortRange>,
    pub skip_inbound_ports: Vec<PortRange>,
    pub skip_outbound_cidrs: Vec<Cidr>,
    pub opaque_ports: Vec<u16>,
    pub requests: BTreeMap<&'static str, Quantity>,
    pub limits: BTreeMap<&'static str, Quantity>,
    pub environment: BTreeMap<String, String>,
}

impl<'a> Settings<'a> {
    /// Notes all annotations that cannot be followed; none without one.
    pub fn read(
        config: &'a InjectConfig,
        pod: &Value,
        bad: &mut Violations,
        warnings: &mut Vec<String>,
    ) -> Option<Self> {
        let nothing = Map::new();
        let all = pod["metadata"]["annotations"].as_object().unwrap_or(&nothing);
        let mut annotations = Annotations { all, bad, known: Vec::new() };
        let ports = |annotations: &mut Annotations<'_>, name, default: &[PortRange]| {
            annotations.read(name, list).unwrap_or_else(|| default.to_vec())
        };
        let mut settings = Self {
            config,
            router_image: annotations
                .read("router-image", image)
                .unwrap_or_else(|| config.router_image.clone()),
            redirect: annotations.read("redirect", parse).unwrap_or(config.redirect),
            log_level: annotations.read("log-level", parse).unwrap_or(config.log_level),
            access_log: annotations.read("access-log", parse).unwrap_or(config.access_log),
            trace_endpoint: annotations
                .read("trace-endpoint", endpoint)
                .or_else(|| config.trace_endpoint.clone()),
            skip_outbound_ports: ports(
                &mut annotations,
                "skip-outbound-ports",
                &config.skip_outbound_ports,
            ),
            skip_inbound_ports: ports(
                &mut annotations,
                "skip-inbound-ports",
                &config.skip_inbound_ports,
            ),
            skip_outbound_cidrs: annotations
                .read("skip-outbound-cidrs", list)
                .unwrap_or_else(|| config.skip_outbound_cidrs.clone()),
            opaque_ports: opaque_ports(config, &mut annotations),
            requests: BTreeMap::new(),
            limits: BTreeMap::new(),
            environment: environment(config, &mut annotations),
        };
        settings.resources(&mut annotations);
        annotations.warn(warnings);
        Some(settings)
    }

    /// Notes what is wrong with the defaults, whatever a pod's annotations are.
    pub fn check(config: &'a InjectConfig, bad: &mut Violations) {
        for (field, text) in
            [("routerImage", &config.router_image), ("cniImage", &config.cni_image)]
        {
            bad.take(field, image(text));
        }
        if let Some(text) = config.trace_endpoint.as_deref().filter(|text| !text.is_empty()) {
            bad.take("traceEndpoint", endpoint(text));
        }
        let address = config.control.rsplit_once(':');
        if !address.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            bad.add("control", format!("{:?} is no host:port", config.control));
        }
        if !(600..=86_400).contains(&config.token_expiration_seconds) {
            bad.add("tokenExpirationSeconds", "is not from 600 to 86400");
        }
        Self::read(config, &Value::Null, bad, &mut Vec::new());
    }

    fn resources(&mut self, annotations: &mut Annotations<'_>) {
        let (requests, limits) = (&self.config.resources.requests, &self.config.resources.limits);
        let resources = [
            ("cpu", ["cpu-request", "cpu-limit"], [&requests.cpu, &limits.cpu]),
            ("memory", ["memory-request", "memory-limit"], [&requests.memory, &limits.memory]),
        ];
        for (resource, names, defaults) in resources {
            let asked = names.map(|name| annotations.read::<Quantity>(name, parse));
            let [mut request, mut limit] =
                [0, 1].map(|i| asked[i].clone().or_else(|| defaults[i].clone()));
            if let (Some(low), Some(high)) = (&request, &limit)
                && low.thousandths() > high.thousandths()
            {
                match asked {
                    [None, None] => annotations.bad.add(
                        format!("resources.requests.{resource}"),
                        format!("{low} is above the limit: {high}"),
                    ),
                    // One was asked for: the default of the other gives way.
                    [Some(_), None] => limit = request.clone(),
                    [None, Some(_)] => request = limit.clone(),
                    _ => annotations.bad.add(
                        path(names[0]),
                        format!("{low} is above {}{}: {high}", PREFIX, names[1]),
                    ),
                }
            }
            self.requests.extend(request.map(|quantity| (resource, quantity)));
            self.limits.extend(limit.map(|quantity| (resource, quantity)));
        }
    }

    /// What is redirected.
    pub fn redirection(&self) -> Redirection {
        Redirection {
            skip_outbound_ports: self.skip_outbound_ports.clone(),
            skip_inbound_ports: self.skip_inbound_ports.clone(),
            skip_outbound_cidrs: self.skip_outbound_cidrs.clone(),
            skip_ipv6: self.config.skip_ipv6,
            ..Redirection::default()
        }
    }

    /// Whether connections into the pod at this port come to the router.
    pub fn redirects_inbound(&self, port: u16) -> bool {
        self.redirect != Redirect::None && self.redirection().receives(port)
    }
}

/// A pod's annotations, and which of ours were looked for.
struct Annotations<'a> {
    all: &'a Map<String, Value>,
    bad: &'a mut Violations,
    known: Vec<&'static str>,
}

impl Annotations<'_> {
    /// One of ours, if it is there and right.
    fn read<T>(&mut self, name: &'static str, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        self.known.push(name);
        let value = self.all.get(&format!("{PREFIX}{name}"))?;
        let read = value.as_str().ok_or_else(|| "is no text; put it in quotes".to_owned());
        self.bad.take(&path(name), read.and_then(|text| parse(text.trim())))
    }

    /// Of names that mean nothing: most often one letter is wrong.
    fn warn(&self, warnings: &mut Vec<String>) {
        let ours = self.all.keys().filter_map(|key| Some((key, key.strip_prefix(PREFIX)?)));
        let unknown = ours.filter(|(key, name)| {
            !OTHERS.contains(&key.as_str())
                && !self.known.contains(name)
                && !name.starts_with("config.")
        });
        warnings.extend(unknown.map(|(key, _)| {
            format!("annotation {key} means nothing to the injector; look at its spelling")
        }));
    }
}

fn path(name: &str) -> String {
    format!("metadata.annotations[{PREFIX}{name}]")
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|why: T::Err| why.to_string())
}

/// The router wants them one by one.
fn opaque_ports(config: &InjectConfig, annotations: &mut Annotations<'_>) -> Vec<u16> {
    let own: Option<Vec<PortRange>> = annotations.read("opaque-ports", list);
    let place = if own.is_some() { path("opaque-ports") } else { "opaquePorts".to_owned() };
    let ranges = own.as_ref().unwrap_or(&config.opaque_ports).iter();
    let ports: BTreeSet<u16> = ranges.flat_map(|range| range.first..=range.last).collect();
    if ports.len() > MAX_OPAQUE_PORTS {
        annotations
            .bad
            .add(place, format!("has {} ports; {MAX_OPAQUE_PORTS} are possible", ports.len()));
    }
    ports.into_iter().collect()
}

fn image(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(format!("{text:?} is no image such as docker.io/weir/weir-router:0.1.0"));
    }
    Ok(text.to_owned())
}

fn endpoint(text: &str) -> Result<String, String> {
    let uri: Option<http::Uri> = text.parse().ok();
    let right = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    right
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is no URL such as http://collector.observability:4317"))
}

/// The sidecar's further variables: the injector's, then the pod's `config.*`.
fn environment(
    config: &InjectConfig,
    annotations: &mut Annotations<'_>,
) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for (name, value) in &config.environment {
        if OWN_VARIABLES.contains(&name.as_str()) {
            annotations
                .bad
                .add(format!("environment.{name}"), "the injector sets it; leave it out");
        }
        environment.insert(name.clone(), value.clone());
    }
    for (key, value) in annotations.all {
        let Some(name) = key.strip_prefix(PREFIX).and_then(|key| key.strip_prefix("config."))
        else {
            continue;
        };
        let place = format!("metadata.annotations[{key}]");
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let variable = format!("WEIR_{}", name.replace('-', "_").to_ascii_uppercase());
        if name.is_empty() || !name.bytes().all(letter) {
            annotations.bad.add(
                place,
                "write the variable's name after WEIR_ as max-requests for WEIR_MAX_REQUESTS",
            );
        } else if OWN_VARIABLES.contains(&variable.as_str()) {
            annotations.bad.add(place, format!("the injector sets {variable}; leave it out"));
        } else if let Some(value) = value.as_str() {
            environment.insert(variable, value.to_owned());
        } else {
            annotations.bad.add(place, "is no text; put it in quotes");
        }
    }
    environment
}
