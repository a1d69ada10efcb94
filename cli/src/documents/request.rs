//! Documents -> `ApplyRequest`, and what the control plane says of it back to
//! the places in the files.

use weir_mesh::gateway_api::is_tcp_route;
use weir_mesh::policy::value;
use weir_proto::weir::control::v1::{ApplyRequest, ChangeResponse, Rollout};

use super::{Documents, Object, Written};
use crate::commands::apply::request;
use crate::error::{self, Error};
use crate::mesh_file::tree::{Node, Value};

/// A request that knows where each of its objects was written.
pub struct Request {
    /// What is sent.
    pub message: ApplyRequest,
    services: Vec<Written>,
    routes: Vec<Written>,
    tcp_routes: Vec<Written>,
    policies: Vec<Written>,
    rollouts: Vec<Written>,
}

impl Request {
    /// All of these documents as one change.
    #[must_use]
    pub fn new(documents: &Documents) -> Self {
        let mut this = Self {
            message: ApplyRequest::default(),
            services: Vec::new(),
            routes: Vec::new(),
            tcp_routes: Vec::new(),
            policies: Vec::new(),
            rollouts: Vec::new(),
        };
        if let Some((written, mesh)) = &documents.mesh {
            this.message = request(mesh);
            this.services = children(written, "services");
            // One list in the file, two in the message, each in the file's order.
            let kinds = children(written, "routes");
            (this.tcp_routes, this.routes) =
                kinds.into_iter().partition(|route| is_tcp_route(&route.node.to_json()));
            this.policies = children(written, "policies");
        }
        for (written, object) in &documents.objects {
            match object {
                Object::Route(route) => {
                    this.message.routes.push(route.into());
                    this.routes.push(written.clone());
                }
                Object::TcpRoute(route) => {
                    this.message.tcp_routes.push(route.into());
                    this.tcp_routes.push(written.clone());
                }
                Object::Policy(policy) => {
                    this.message.policies.push(policy.into());
                    this.policies.push(written.clone());
                }
                Object::Rollout { name, spec } => {
                    this.message.rollouts.push(Rollout {
                        name: name.to_string(),
                        spec: Some(value::to_struct(spec.document())),
                        ..Rollout::default()
                    });
                    this.rollouts.push(written.clone());
                }
            }
        }
        this
    }

    /// What the control plane refused, by the places in the files.
    #[must_use]
    pub fn refused(&self, status: tonic::Status) -> Error {
        let violations = error::violations(&status);
        if violations.is_empty() {
            return status.into();
        }
        Error::of_lines(violations.iter().map(|(field, why)| self.line(field, why)))
    }

    /// The warnings of an answer, one line each.
    pub fn warnings<'a>(&'a self, answer: &'a ChangeResponse) -> impl Iterator<Item = String> + 'a {
        answer.warnings.iter().map(|warning| {
            let line = self.line(&warning.field, &warning.description);
            format!("warning: {}: {line}", warning.name)
        })
    }

    pub(super) fn line(&self, field: &str, why: &str) -> String {
        match self.find(field) {
            Some((written, field)) => written.mistake(&field, why).to_string(),
            None if field.is_empty() => why.to_owned(),
            None => format!("{field}: {why}"),
        }
    }

    /// The object that a field of the request belongs to, and the field as its
    /// document calls it.
    fn find(&self, field: &str) -> Option<(&Written, String)> {
        let (list, rest) = field.split_once('[')?;
        let (index, rest) = rest.split_once(']')?;
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        let written = match list {
            "services" => &self.services,
            "routes" => &self.routes,
            "tcpRoutes" => &self.tcp_routes,
            "policies" => &self.policies,
            "rollouts" => &self.rollouts,
            _ => return None,
        };
        let written = written.get(index.parse::<usize>().ok()?)?;
        Some((written, of_document(list, rest)))
    }
}

/// A field of a message as its document calls it.
fn of_document(list: &str, field: &str) -> String {
    let ends = |name: &str| field.strip_suffix(name).filter(|before| before.ends_with('.'));
    let named = |before: &str| format!("{before}name");
    match list {
        _ if field.is_empty() => String::new(),
        "services" => ends("version").map_or_else(|| field.to_owned(), named),
        _ if field == "name" => "metadata.name".to_owned(),
        "tcpRoutes" if field.starts_with("backendRefs") => {
            // The message has no rules: a document has exactly one.
            let backend = ends("service").or_else(|| ends("version")).map(named);
            format!("spec.rules[0].{}", backend.as_deref().unwrap_or(field))
        }
        "routes" | "tcpRoutes" if field != "kind" => {
            // Of a backend the message has two fields, the document one name.
            let backend = ends("service").or_else(|| ends("version")).map(named);
            format!("spec.{}", backend.as_deref().unwrap_or(field))
        }
        _ => field.to_owned(),
    }
}

/// The elements of a list of a mesh file.
fn children(written: &Written, key: &str) -> Vec<Written> {
    let Some(Node { value: Value::List(items), .. }) = written.node.get(key) else {
        return Vec::new();
    };
    let child = |(i, node): (usize, &Node)| Written {
        file: written.file.clone(),
        at: format!("{key}[{i}]"),
        node: node.clone(),
    };
    items.iter().enumerate().map(child).collect()
}
