//! The mesh file: which services there are, how each version is run, and the
//! Gateway API routes between them.
//!
//! A file is accepted whole or refused whole, with every mistake by its line,
//! column and field path.

mod access;
pub mod edit;
mod program;
mod read;
mod service;
mod tcp;
pub mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use weir_mesh::gateway_api::{KnownServices, is_tcp_route, parse_route};
use weir_mesh::model::{Invalid, Options, Route, ServiceName, TcpRoute, VersionName, Violations};
use weir_mesh::policy::{Policy, parse_policy};

pub use program::{Builtin, Program};
use read::Fields;
pub use service::{Secret, ServiceSpec, VersionSpec};
pub use tcp::{GatewayListener, UpstreamSpec};
use tree::{Node, Place, Value};

/// The mesh that runs without a file.
pub const EXAMPLE: &str = include_str!("example.yaml");

/// What `weir init` writes.
pub const STARTER: &str = include_str!("init.yaml");

const API_VERSION: &str = "weir.dev/v1alpha1";

/// One mistake and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// In the file; absent when the parser does not say.
    pub place: Option<Place>,
    /// Path of the field; empty when the whole is meant.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// A mesh file that is refused. Displays one line for each mistake, as
/// `FILE:LINE:COLUMN: FIELD: DESCRIPTION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// As the user named it.
    pub file: String,
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if let Some(place) = mistake.place {
                write!(f, ":{place}")?;
            }
            if !mistake.field.is_empty() {
                write!(f, ": {}", mistake.field)?;
            }
            write!(f, ": {}", mistake.description)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// A mesh, as its file describes it.
#[derive(Debug, Clone)]
pub struct MeshFile {
    /// SPIFFE trust domain.
    pub trust_domain: Option<String>,
    /// Of workload certificates: a duration such as `1h`, read by the control plane.
    pub certificate_lifetime: Option<String>,
    /// Mesh-wide switches.
    pub options: Options,
    /// Where spans go by OTLP/gRPC; none: to the control plane's memory.
    pub otlp_endpoint: Option<String>,
    /// The gateway's port outside, when the file fixes it.
    pub gateway_port: Option<u16>,
    /// In the file's order.
    pub services: Vec<ServiceSpec>,
    /// In the file's order.
    pub routes: Vec<Route>,
    /// In the file's order.
    pub policies: Vec<Policy>,
    /// TCPRoutes and TLSRoutes, in the file's order.
    pub tcp_routes: Vec<TcpRoute>,
    /// Of the gateway, for those.
    pub listeners: Vec<GatewayListener>,
}

/// Where a mesh file comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// What errors call it.
    pub name: &'a str,
    /// What relative paths in it start from.
    pub directory: &'a Path,
    /// Whether anyone on the machine can read it, so that it may hold no secret.
    pub public: bool,
}

impl MeshFile {
    /// Reads a mesh file.
    ///
    /// # Errors
    /// Every mistake with its place; descriptor sets that cannot be read are
    /// among them.
    pub fn parse(text: &str, origin: Origin<'_>) -> Result<Self, Refused> {
        let refused = |mistakes| Refused { file: origin.name.to_owned(), mistakes };
        let tree = Node::parse(text).map_err(|(place, description)| {
            refused(vec![Mistake { place, field: String::new(), description }])
        })?;
        Self::of_tree(&tree, origin).map_err(|invalid| {
            let mistake = |violation: weir_mesh::model::Violation| Mistake {
                place: Some(tree.find(&violation.field)),
                field: violation.field,
                description: violation.description,
            };
            refused(invalid.0.into_iter().map(mistake).collect())
        })
    }

    /// Reads a mesh file that was parsed already.
    ///
    /// # Errors
    /// Every mistake by its field's path.
    pub fn of_tree(tree: &Node, origin: Origin<'_>) -> Result<Self, Invalid> {
        let mut violations = Violations::new();
        let mesh = read_mesh(tree, origin, &mut violations);
        violations.finish(mesh)
    }

    /// The example mesh.
    ///
    /// # Errors
    /// None while the tests pass: it is part of the program.
    pub fn example() -> Result<Self, Refused> {
        let origin = Origin { name: "the example mesh", directory: Path::new("."), public: true };
        Self::parse(EXAMPLE, origin)
    }
}

fn read_mesh(node: &Node, origin: Origin<'_>, violations: &mut Violations) -> Option<MeshFile> {
    let mut fields = Fields::of(node, "", violations)?;
    constant(&mut fields, "apiVersion", API_VERSION, violations);
    constant(&mut fields, "kind", "Mesh", violations);
    let trust_domain = fields.text("trustDomain", violations).map(str::to_owned);
    if let Some(domain) = &trust_domain {
        check_trust_domain(domain, violations);
    }
    let certificate_lifetime = fields.text("certificateLifetime", violations).map(str::to_owned);
    if certificate_lifetime.as_deref().is_some_and(|text| !is_lifetime(text)) {
        violations.add("certificateLifetime", "is not a duration from 1m to 7d, such as 1h");
    }
    let mut options = Options::default();
    let otlp_endpoint = read_tracing(fields.get("tracing"), &mut options, violations);
    let mut listeners = Vec::new();
    let gateway_port =
        read_gateway(fields.get("gateway"), &mut options, &mut listeners, violations);
    options.egress = tcp::egress(fields.get("egress"), violations);
    options.tcp = tcp::limits(fields.get("tcp"), violations);
    access::read_path(fields.get("path"), &mut options, violations);
    access::read_authorization(fields.get("authorization"), &mut options, violations);

    fields.need("services", violations);
    let mut services: Vec<ServiceSpec> = Vec::new();
    let items = fields.list("services", violations);
    for (at, item) in &items {
        let Some(spec) = service::read(item, at, origin, violations) else { continue };
        if services.iter().any(|other| other.service.name == spec.service.name) {
            violations.add(format!("{at}.name"), format!("{} is here twice", spec.service.name));
        }
        services.push(spec);
    }
    if services.len() == items.len() {
        tcp::check_upstreams(&services, violations);
    }
    let (routes, tcp_routes) =
        read_routes(&mut fields, &known_services(&items), &listeners, violations);
    let policies = read_policies(&mut fields, violations);
    fields.finish(violations);
    Some(MeshFile {
        trust_domain,
        certificate_lifetime,
        options,
        otlp_endpoint,
        gateway_port,
        services,
        routes,
        policies,
        tcp_routes,
        listeners,
    })
}

fn constant(
    fields: &mut Fields<'_>,
    field: &'static str,
    wanted: &str,
    violations: &mut Violations,
) {
    if let Some(found) = fields.need_text(field, violations)
        && found != wanted
    {
        violations.add(field, format!("is {found:?}; this program reads {wanted:?}"));
    }
}

/// SPIFFE-ID §2.1: lower-case letters, digits, '.', '-' and '_', at most 255.
fn check_trust_domain(domain: &str, violations: &mut Violations) {
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(allowed) {
        violations.add(
            "trustDomain",
            "is no SPIFFE trust domain; use 1 to 255 of a-z, 0-9, '.', '-' and '_'",
        );
    }
}

/// Asks the control plane's own options, which will be given it.
fn is_lifetime(text: &str) -> bool {
    #[derive(clap::Parser)]
    struct Options {
        #[command(flatten)]
        _control_plane: weir_control_plane::Args,
    }
    let option = format!("--certificate-lifetime={text}");
    <Options as clap::Parser>::try_parse_from(["", "--data=.", &option]).is_ok()
}

fn read_tracing(
    node: Option<&Node>,
    options: &mut Options,
    violations: &mut Violations,
) -> Option<String> {
    let mut fields = Fields::of(node?, "tracing", violations)?;
    if let Some(sampling) = fields.number("sampling", violations) {
        if (0.0..=1.0).contains(&sampling) {
            options.trace_sampling = sampling;
        } else {
            violations.add("tracing.sampling", format!("{sampling} is not between 0.0 and 1.0"));
        }
    }
    let endpoint = fields.text("otlpEndpoint", violations).map(str::to_owned);
    if let Some(url) = &endpoint
        && !url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some())
    {
        violations.add("tracing.otlpEndpoint", "is no URL; use one like http://127.0.0.1:4317");
    }
    fields.finish(violations);
    endpoint
}

fn read_gateway(
    node: Option<&Node>,
    options: &mut Options,
    listeners: &mut Vec<GatewayListener>,
    violations: &mut Violations,
) -> Option<u16> {
    let mut fields = Fields::of(node?, "gateway", violations)?;
    let port = fields
        .integer("port", violations)
        .and_then(|port| violations.take("gateway.port", service::port(port)));
    *listeners = tcp::listeners(&mut fields, violations);
    options.show_version = fields.boolean("showVersion", violations).unwrap_or(false);
    for (at, item) in fields.list("corsOrigins", violations) {
        if let Some(origin) = read::text(item, &at, violations) {
            options.cors_origins.push(origin.into());
        }
    }
    fields.finish(violations);
    port
}

fn read_routes(
    fields: &mut Fields<'_>,
    services: &KnownServices,
    listeners: &[GatewayListener],
    violations: &mut Violations,
) -> (Vec<Route>, Vec<TcpRoute>) {
    let mut routes: Vec<Route> = Vec::new();
    let mut tcp_routes: Vec<TcpRoute> = Vec::new();
    for (at, item) in fields.list("routes", violations) {
        if is_tcp_route(&item.to_json()) {
            let route = tcp::route(item, &at, services, listeners, violations);
            let Some(route) = route else { continue };
            if tcp_routes.iter().any(|other| other.name == route.name) {
                let why = format!("{} is here twice", route.name);
                violations.add(format!("{at}.metadata.name"), why);
            }
            tcp_routes.push(route);
            continue;
        }
        let route = match parse_route(&item.to_json(), &at, services) {
            Ok(route) => route,
            Err(invalid) => {
                violations.extend(invalid);
                continue;
            }
        };
        if routes.iter().any(|other| other.name == route.name) {
            violations.add(format!("{at}.metadata.name"), format!("{} is here twice", route.name));
        }
        routes.push(route);
    }
    (routes, tcp_routes)
}

fn read_policies(fields: &mut Fields<'_>, violations: &mut Violations) -> Vec<Policy> {
    let mut policies: Vec<Policy> = Vec::new();
    for (at, item) in fields.list("policies", violations) {
        match parse_policy(&item.to_json(), &at) {
            Ok(policy) => {
                let same = |other: &Policy| other.kind == policy.kind && other.name == policy.name;
                if policies.iter().any(same) {
                    let why = format!("{} is here twice", policy.name);
                    violations.add(format!("{at}.metadata.name"), why);
                }
                policies.push(policy);
            }
            Err(invalid) => violations.extend(invalid),
        }
    }
    policies
}

/// What routes may name. Also services that are refused for something else:
/// that a route names them is no second mistake.
fn known_services(services: &[(String, &Node)]) -> KnownServices {
    services.iter().filter_map(|(_, node)| known_service(node)).collect()
}

/// The services that a mesh file names, those that are refused included.
pub fn services(mesh: &Node) -> Vec<(ServiceName, Vec<VersionName>)> {
    match mesh.get("services").map(|services| &services.value) {
        Some(Value::List(items)) => items.iter().filter_map(known_service).collect(),
        _ => Vec::new(),
    }
}

fn known_service(node: &Node) -> Option<(ServiceName, Vec<VersionName>)> {
    let named = |node: &Node| match &node.get("name")?.value {
        Value::Text(name) => Some(name.clone()),
        _ => None,
    };
    let versions = |node: &Node| match node.get("versions").map(|versions| &versions.value) {
        Some(Value::List(items)) => {
            items.iter().filter_map(|item| VersionName::try_from(named(item)?).ok()).collect()
        }
        _ => Vec::new(),
    };
    Some((ServiceName::try_from(named(node)?).ok()?, versions(node)))
}

/// Reads a mesh file from disk.
///
/// # Errors
/// The file cannot be read, or is refused.
pub fn load(path: &Path) -> Result<MeshFile, crate::Error> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        crate::Error::new(format!(
            "cannot read the mesh file {}: {error}; write one with `weir init`, or leave \
             --file out to run the example mesh",
            path.display()
        ))
    })?;
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let origin = Origin {
        name: &path.display().to_string(),
        directory: &directory,
        public: is_public(path),
    };
    Ok(MeshFile::parse(&text, origin)?)
}

/// Whether others than the owner and the group may read it. What cannot be
/// asked counts as public.
pub fn is_public(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).map_or(true, |meta| meta.permissions().mode() & 0o004 != 0)
}

/// Whether a node is one of the scalars that an environment variable can hold.
fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null => Some(String::new()),
        Value::List(_) | Value::Map(_) => None,
    }
}

/// A version's name with its weight, as a split is made of them.
type Weighted = (VersionName, weir_mesh::model::Weight);

#[cfg(test)]
mod tests;
