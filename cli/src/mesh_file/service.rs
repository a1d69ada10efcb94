//! One service of a mesh file and how its versions are run.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;
use weir_mesh::mesh_document::DATA_URL;
use weir_mesh::model::{
    Addresses, Audience, Protocol, Service, ServiceName, Split, Sticky, VersionMirror, VersionName,
    Violations, Weight,
};
use weir_mesh::traffic_split;
use weir_mesh::wire;
use weir_proto::weir::mesh::v1 as pb;

use super::program::{self, Program};
use super::read::Fields;
use super::tcp::{self, UpstreamSpec};
use super::tree::{Node, Value};
use super::{Origin, Weighted, scalar};

/// Replicas of one version; more is surely a mistake on one machine.
const MAX_REPLICAS: i64 = 64;

/// Text that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A service and how to run it.
#[derive(Debug, Clone)]
pub struct ServiceSpec {
    /// What the mesh is told.
    pub service: Service,
    /// Proof of identity of its routers; none: one is made.
    pub join_token: Option<Secret>,
    /// In the split's order.
    pub versions: Vec<VersionSpec>,
    /// Services with protocol `tcp` that it connects to.
    pub upstreams: Vec<UpstreamSpec>,
}

/// How one version is run.
#[derive(Debug, Clone)]
pub struct VersionSpec {
    /// Its name.
    pub name: VersionName,
    /// How many processes: 1 to 64.
    pub replicas: u32,
    /// What each runs.
    pub program: Program,
    /// Added to the environment; `$PORT` in it is replaced.
    pub env: Vec<(String, String)>,
    /// Where it listens on 127.0.0.1; none: a free port, told in `$PORT`.
    pub port: Option<u16>,
    /// What it is started in.
    pub working_directory: PathBuf,
    /// Field path in the mesh file.
    pub at: String,
}

/// A port that a process can listen on.
pub fn port(value: i64) -> Result<u16, String> {
    match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{value} is no port; use 1 to 65535")),
    }
}

pub(super) fn read(
    node: &Node,
    at: &str,
    origin: Origin<'_>,
    violations: &mut Violations,
) -> Option<ServiceSpec> {
    let mut fields = Fields::of(node, at, violations)?;
    let name = fields
        .need_text("name", violations)
        .and_then(|text| violations.take(&format!("{at}.name"), ServiceName::try_from(text)));
    if name.as_ref().is_some_and(|name| name.as_str() == "gateway") {
        violations.add(format!("{at}.name"), "is taken by the gateway itself; choose another");
    }
    if let Some(name) = name.as_ref().filter(|name| !name.is_label()) {
        let why =
            format!("{name} is not a DNS label (RFC 1123): namespaces and ports are Kubernetes'");
        violations.add(format!("{at}.name"), why);
    }
    let protocol = read_protocol(&mut fields, violations);
    let sticky = fields
        .get("sticky")
        .and_then(|node| read_sticky(node, &format!("{at}.sticky"), violations));
    let join_token = read_join_token(&mut fields, origin, violations);

    fields.need("versions", violations);
    let mut versions = Vec::new();
    let mut weights: Vec<Weighted> = Vec::new();
    let mut addresses = Addresses::new();
    let items = fields.list("versions", violations);
    let mut whole = true;
    for (i, (at, item)) in items.iter().enumerate() {
        match read_version(item, at, i == 0, origin, &mut addresses, violations) {
            Some((version, weight)) => {
                weights.push((version.name.clone(), weight));
                versions.push(version);
            }
            None => whole = false,
        }
    }
    // A version that was refused would make the split wrong as well.
    let split = whole
        .then(|| violations.take(&format!("{at}.versions"), Split::new(weights, sticky)))
        .flatten();
    let routing = read_routing(&mut fields, split.as_ref(), at, violations);
    let processes = versions.iter().map(|version| version.replicas).sum();
    let upstreams = tcp::upstreams(&mut fields, processes, violations);
    let descriptor_set =
        read_descriptors(&mut fields, name.as_ref(), &versions, origin, violations);
    fields.finish(violations);
    Some(ServiceSpec {
        service: Service {
            virtual_addresses: Vec::new(),
            audiences: routing.audiences,
            mirror: routing.mirror,
            managed_by: routing.managed_by,
            name: name?,
            protocol: protocol?,
            split: split?,
            addresses,
            descriptor_set,
        },
        join_token,
        versions,
        upstreams,
    })
}

/// What of a service goes where it does whatever the weights, and who sets those.
#[derive(Default)]
struct Routing {
    audiences: Vec<Audience>,
    mirror: Option<VersionMirror>,
    managed_by: Option<Arc<str>>,
}

/// `audiences`, `mirror` and `managedBy`, as a TrafficSplit has them.
fn read_routing(
    fields: &mut Fields<'_>,
    split: Option<&Split>,
    at: &str,
    violations: &mut Violations,
) -> Routing {
    let mut spec = serde_json::Map::new();
    for field in ["audiences", "mirror", "managedBy"] {
        let value = fields.get(field).map(|node| (field.to_owned(), node.to_json()));
        spec.extend(value);
    }
    let (Some(split), false) = (split, spec.is_empty()) else { return Routing::default() };
    let versions = split.versions().iter();
    let versions =
        versions.map(|(name, weight)| json!({"name": name.as_str(), "weight": weight.get()}));
    spec.insert("versions".to_owned(), versions.collect());
    match traffic_split::read(&spec.into(), at) {
        Ok(read) => {
            Routing { audiences: read.audiences, mirror: read.mirror, managed_by: read.managed_by }
        }
        Err(invalid) => {
            violations.extend(invalid);
            Routing::default()
        }
    }
}

fn read_protocol(fields: &mut Fields<'_>, violations: &mut Violations) -> Option<Protocol> {
    let at = fields.at("protocol");
    match fields.need_text("protocol", violations)? {
        "http1" => Some(Protocol::Http1),
        "http2" => Some(Protocol::Http2),
        "grpc" => Some(Protocol::Grpc),
        "tcp" => Some(Protocol::Tcp),
        other => {
            violations.add(at, format!("{other:?} is not known; use http1, http2, grpc or tcp"));
            None
        }
    }
}

fn read_sticky(node: &Node, at: &str, violations: &mut Violations) -> Option<Sticky> {
    let mut fields = Fields::of(node, at, violations)?;
    let header = fields.text("header", violations);
    let cookie = fields.text("cookie", violations);
    let user = fields.boolean("user", violations).filter(|user| *user);
    fields.finish(violations);
    let by = match (header, cookie, user) {
        (Some(name), None, None) => pb::sticky::By::Header(name.to_owned()),
        (None, Some(name), None) => pb::sticky::By::Cookie(name.to_owned()),
        (None, None, Some(user)) => pb::sticky::By::User(user),
        _ => {
            violations.add(at, "needs exactly one of header, cookie and `user: true`");
            return None;
        }
    };
    match wire::sticky(&pb::Sticky { by: Some(by) }, at) {
        Ok(sticky) => Some(sticky),
        Err(invalid) => {
            violations.extend(invalid);
            None
        }
    }
}

fn read_join_token(
    fields: &mut Fields<'_>,
    origin: Origin<'_>,
    violations: &mut Violations,
) -> Option<Secret> {
    let at = fields.at("joinToken");
    let token = fields.text("joinToken", violations)?;
    if token.len() < 16 {
        violations.add(&at, "is shorter than 16 characters; leave it out to have one made");
    }
    if origin.public {
        violations.add(
            at,
            "is a secret, but everyone on this machine can read the file; `chmod o-r` it, or \
             leave the field out to have a token made",
        );
    }
    Some(Secret::new(token.to_owned()))
}

fn read_descriptors(
    fields: &mut Fields<'_>,
    name: Option<&ServiceName>,
    versions: &[VersionSpec],
    origin: Origin<'_>,
    violations: &mut Violations,
) -> Bytes {
    let at = fields.at("descriptorSet");
    let Some(text) = fields.text("descriptorSet", violations) else { return Bytes::new() };
    if text == "builtin" {
        let builtin = versions.iter().find_map(|version| match version.program {
            Program::Builtin(builtin) => Some(builtin.name()),
            Program::Command(_) | Program::Elsewhere => None,
        });
        let of = builtin.or(name.map(ServiceName::as_str)).unwrap_or_default();
        return match weir_proto::descriptors::of(of) {
            Some(bytes) => Bytes::from_static(bytes),
            None => {
                violations.add(at, "is `builtin`, but no version runs a service of weir's own");
                Bytes::new()
            }
        };
    }
    if let Some(encoded) = text.strip_prefix(DATA_URL) {
        let read = STANDARD.decode(encoded).map_err(|error| format!("is no base64: {error}"));
        return violations.take(&at, read).unwrap_or_default().into();
    }
    let path = origin.directory.join(text);
    match std::fs::read(&path) {
        Ok(bytes) => bytes.into(),
        Err(error) => {
            violations.add(at, format!("cannot read {}: {error}", path.display()));
            Bytes::new()
        }
    }
}

fn read_version(
    node: &Node,
    at: &str,
    first: bool,
    origin: Origin<'_>,
    addresses: &mut Addresses,
    violations: &mut Violations,
) -> Option<(VersionSpec, Weight)> {
    let mut fields = Fields::of(node, at, violations)?;
    let name = fields
        .need_text("name", violations)
        .and_then(|text| violations.take(&format!("{at}.name"), VersionName::try_from(text)));
    let weight = fields.integer("weight", violations).unwrap_or(if first { 100 } else { 0 });
    let weight = violations.take(&format!("{at}.weight"), Weight::try_from(weight));
    let replicas = fields.integer("replicas", violations).unwrap_or(1);
    if !(1..=MAX_REPLICAS).contains(&replicas) {
        violations
            .add(format!("{at}.replicas"), format!("{replicas} is not in 1 to {MAX_REPLICAS}"));
    }
    let port = fields
        .integer("port", violations)
        .and_then(|value| violations.take(&format!("{at}.port"), port(value)));
    if port.is_some() && replicas > 1 {
        violations.add(
            format!("{at}.port"),
            "is fixed, so there can be one replica; leave it out and listen on $PORT",
        );
    }
    let working_directory = match fields.text("workingDirectory", violations) {
        Some(text) => origin.directory.join(text),
        None => origin.directory.to_path_buf(),
    };
    if !working_directory.is_dir() {
        violations.add(
            format!("{at}.workingDirectory"),
            format!("{} is no directory", working_directory.display()),
        );
    }
    let program =
        program::read(&mut fields, name.as_ref(), &working_directory, addresses, violations);
    let env = read_env(&mut fields, violations);
    fields.finish(violations);
    let version = VersionSpec {
        name: name?,
        replicas: u32::try_from(replicas).unwrap_or(1),
        program: program?,
        env,
        port,
        working_directory,
        at: at.to_owned(),
    };
    Some((version, weight?))
}

fn read_env(fields: &mut Fields<'_>, violations: &mut Violations) -> Vec<(String, String)> {
    let at = fields.at("env");
    let Some(node) = fields.get("env") else { return Vec::new() };
    let Value::Map(entries) = &node.value else {
        violations.add(at, format!("is {}; a mapping belongs here", node.kind()));
        return Vec::new();
    };
    let mut env = Vec::new();
    for entry in entries {
        let at = format!("{at}.{}", entry.key);
        if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
            violations.add(&at, "is no name of an environment variable");
        }
        match scalar(&entry.node) {
            Some(value) if !value.contains('\0') => env.push((entry.key.clone(), value)),
            _ => violations.add(at, "must be text without a NUL"),
        }
    }
    env
}
