//! Documents on the command line: routes, policies and mesh files, from files,
//! directories and standard input.
//!
//! Documents are accepted all together or refused all together, with every
//! mistake as `FILE:LINE:COLUMN: FIELD: DESCRIPTION`.

pub mod current;
pub mod diff;
mod list;
pub mod proposed;
mod request;
pub mod schema;
mod source;
pub mod stream;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;
use weir_mesh::gateway_api::{self, KnownServices, is_tcp_route, parse_route, parse_tcp_route};
use weir_mesh::model::{
    Invalid, Route, RouteKind, ServiceName, TcpRoute, TcpRouteKind, VersionName,
};
use weir_mesh::policy::{self, Policy, PolicyKind, parse_policy};
use weir_mesh::rollout::{self, Spec, parse_rollout};

use crate::Error;
use crate::mesh_file::tree::{Node, Place, Value};
use crate::mesh_file::{self, MeshFile};

pub use request::Request;
pub use source::Files;

/// Kinds beside those of policies.
const KINDS: [&str; 7] =
    ["Mesh", "List", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", rollout::KIND];

/// One line of what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    file: Arc<str>,
    place: Option<Place>,
    field: String,
    description: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(place) = self.place {
            write!(f, ":{place}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.description)
    }
}

/// Every mistake, one a line, in the order of the files.
pub fn refusal(mistakes: &[Mistake]) -> Error {
    Error::of_lines(mistakes.iter().map(ToString::to_string))
}

/// Something that was written in a file, and where.
#[derive(Debug, Clone)]
pub struct Written {
    /// As the user named it.
    pub file: Arc<str>,
    /// Path of the object within its document; empty when it is the document.
    pub at: String,
    /// The object.
    pub node: Node,
}

impl Written {
    /// What is wrong with one of its fields.
    #[must_use]
    pub fn mistake(&self, field: &str, description: impl Into<String>) -> Mistake {
        let dot = if self.at.is_empty() || field.is_empty() { "" } else { "." };
        Mistake {
            file: self.file.clone(),
            place: Some(self.node.find(field)),
            field: format!("{}{dot}{field}", self.at),
            description: description.into(),
        }
    }

    fn mistakes(&self, invalid: Invalid) -> impl Iterator<Item = Mistake> {
        invalid.0.into_iter().map(|violation| self.mistake(&violation.field, violation.description))
    }

    fn text(&self, key: &str) -> Option<&str> {
        match &self.node.get(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// An object that can be applied, deleted and written as a document again.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// HTTPRoute or GRPCRoute.
    Route(Route),
    /// TCPRoute or TLSRoute.
    TcpRoute(TcpRoute),
    /// One of `weir.dev`.
    Policy(Policy),
    /// A plan of shifts.
    Rollout {
        /// Its name.
        name: Arc<str>,
        /// What it says.
        spec: Arc<Spec>,
    },
}

impl Object {
    /// Reads the document of any kind but a mesh file's and a list's.
    fn read(document: &Json, services: &KnownServices) -> Result<Self, Invalid> {
        let text = |key: &str| document[key].as_str().unwrap_or_default();
        if text("kind") == rollout::KIND {
            let (name, spec) = parse_rollout(document, "")?;
            return Ok(Self::Rollout { name, spec: Arc::new(spec) });
        }
        let is_policy = text("kind").parse::<PolicyKind>().is_ok()
            || text("apiVersion").starts_with(policy::GROUP);
        if is_policy {
            return parse_policy(document, "").map(Self::Policy);
        }
        if is_tcp_route(document) {
            return parse_tcp_route(document, "", services).map(Self::TcpRoute);
        }
        parse_route(document, "", services).map(Self::Route)
    }

    /// As the user wrote it, or could have.
    #[must_use]
    pub fn to_document(&self) -> Json {
        match self {
            Self::Route(route) => gateway_api::to_document(route),
            Self::TcpRoute(route) => gateway_api::to_tcp_document(route),
            Self::Policy(policy) => policy::to_document(policy),
            Self::Rollout { name, spec } => rollout::to_document(name, spec),
        }
    }

    /// Its kind as documents have it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Route(route) => match route.kind {
                RouteKind::Http => "HTTPRoute",
                RouteKind::Grpc => "GRPCRoute",
            },
            Self::TcpRoute(route) => match route.kind {
                TcpRouteKind::Tcp => "TCPRoute",
                TcpRouteKind::Tls => "TLSRoute",
            },
            Self::Policy(policy) => policy.kind.as_str(),
            Self::Rollout { .. } => rollout::KIND,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Route(route) => &route.name,
            Self::TcpRoute(route) => &route.name,
            Self::Policy(policy) => &policy.name,
            Self::Rollout { name, .. } => name,
        }
    }

    /// What no other object has: HTTPRoutes and GRPCRoutes share their names, as do
    /// TCPRoutes and TLSRoutes.
    #[must_use]
    pub fn key(&self) -> (&'static str, &str) {
        match self {
            Self::Route(route) => ("route", &route.name),
            Self::TcpRoute(route) => ("tcproute", &route.name),
            Self::Policy(policy) => (policy.kind.as_str(), &policy.name),
            Self::Rollout { name, .. } => (rollout::KIND, name),
        }
    }
}

/// What was read, before routes were: they need to know the services.
pub struct Loaded {
    documents: Vec<Written>,
    mesh: Option<(Written, Option<MeshFile>)>,
    mistakes: Vec<Mistake>,
}

/// Documents that are right by themselves.
pub struct Documents {
    /// The mesh file, if one is among them.
    pub mesh: Option<(Written, MeshFile)>,
    /// The others, in the order in which they were named.
    pub objects: Vec<(Written, Object)>,
}

impl Loaded {
    /// Reads files as far as that goes without a mesh.
    ///
    /// # Errors
    /// A file cannot be read, or there is none.
    pub fn read(files: &Files) -> Result<Self, Error> {
        let mut loaded = Self { documents: Vec::new(), mesh: None, mistakes: Vec::new() };
        for source in files.sources()? {
            let name: Arc<str> = source.name.as_str().into();
            for document in stream::documents(&source.text) {
                match document {
                    Ok(node) => loaded.document(node, &name, &source),
                    Err((place, description)) => loaded.mistakes.push(Mistake {
                        file: name.clone(),
                        place,
                        field: String::new(),
                        description,
                    }),
                }
            }
        }
        Ok(loaded)
    }

    fn document(&mut self, node: Node, file: &Arc<str>, source: &source::Source) {
        let written = Written { file: file.clone(), at: String::new(), node };
        match written.text("kind") {
            Some("Mesh") => self.mesh(written, source),
            Some("List") => match list::items(&written) {
                Ok(items) => items.into_iter().for_each(|item| match item.text("kind") {
                    Some("Mesh") => self.mesh(item, source),
                    _ => self.documents.push(item),
                }),
                Err(mistake) => self.mistakes.push(mistake),
            },
            _ => self.documents.push(written),
        }
    }

    fn mesh(&mut self, written: Written, source: &source::Source) {
        if let Some((first, _)) = &self.mesh {
            let why = format!("there is a Mesh already, in {}; name one", first.file);
            self.mistakes.push(written.mistake("kind", why));
            return;
        }
        let mesh = MeshFile::of_tree(&written.node, source.origin());
        let mesh = mesh.map_err(|invalid| self.mistakes.extend(written.mistakes(invalid))).ok();
        self.mesh = Some((written, mesh));
    }

    /// Whether a mesh file is among them.
    #[must_use]
    pub fn has_mesh(&self) -> bool {
        self.mesh.is_some()
    }

    /// All that is known to be wrong before services are known, if anything is.
    ///
    /// # Errors
    /// Every mistake.
    pub fn check(&self) -> Result<(), Error> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(refusal(&self.mistakes)) }
    }

    /// Reads the rest. `services` are those of the mesh; those of a mesh file go
    /// before them.
    ///
    /// # Errors
    /// Every mistake of every document.
    pub fn resolve(
        mut self,
        services: impl IntoIterator<Item = (ServiceName, Vec<VersionName>)>,
    ) -> Result<Documents, Error> {
        let of_mesh = self.mesh.iter().flat_map(|(written, _)| mesh_file::services(&written.node));
        let services: KnownServices = services.into_iter().chain(of_mesh).collect();
        let mut objects: Vec<(Written, Object)> = Vec::new();
        for written in self.documents {
            match read(&written, &services) {
                Ok(object) => objects.push((written, object)),
                Err(mistakes) => self.mistakes.extend(mistakes),
            }
        }
        let mesh = self.mesh.and_then(|(written, mesh)| Some((written, mesh?)));
        self.mistakes.extend(twice(mesh.as_ref().map(|(_, mesh)| mesh), &objects));
        match self.mistakes.as_slice() {
            [] => Ok(Documents { mesh, objects }),
            mistakes => Err(refusal(mistakes)),
        }
    }
}

fn read(written: &Written, services: &KnownServices) -> Result<Object, Vec<Mistake>> {
    if !matches!(written.node.value, Value::Map(_)) {
        let why =
            format!("is {}; a document with apiVersion and kind belongs here", written.node.kind());
        return Err(vec![written.mistake("", why)]);
    }
    if written.node.get("kind").is_none() {
        let kinds = KINDS.into_iter().chain(PolicyKind::ALL.iter().map(|kind| kind.as_str()));
        let why = format!("is missing; use one of: {}", kinds.collect::<Vec<_>>().join(", "));
        return Err(vec![written.mistake("kind", why)]);
    }
    Object::read(&written.node.to_json(), services)
        .map_err(|invalid| written.mistakes(invalid).collect())
}

/// Objects that are there twice, the mesh file's included.
fn twice(mesh: Option<&MeshFile>, objects: &[(Written, Object)]) -> Vec<Mistake> {
    let mut seen: HashMap<(&str, &str), String> = HashMap::new();
    if let Some(mesh) = mesh {
        let routes = mesh.routes.iter().map(|route| ("route", &*route.name));
        let policies = mesh.policies.iter().map(|policy| (policy.kind.as_str(), &*policy.name));
        let tcp = mesh.tcp_routes.iter().map(|route| ("tcproute", &*route.name));
        seen.extend(routes.chain(tcp).chain(policies).map(|key| (key, "the mesh file".to_owned())));
    }
    let mut mistakes = Vec::new();
    for (written, object) in objects {
        let place = written.node.find("metadata.name");
        match seen.insert(object.key(), format!("{}:{place}", written.file)) {
            None => {}
            Some(first) => {
                let why = format!("{} is here twice; first in {first}", object.name());
                mistakes.push(written.mistake("metadata.name", why));
            }
        }
    }
    mistakes
}

#[cfg(test)]
mod tests;
