//! `weir get services|routes|policies|instances|routers|edges`.

use weir_proto::weir::control::v1::{
    EdgeStatus, ListEdgesRequest, ListInstancesRequest, ListRoutersRequest, ListRoutesRequest,
    ListServicesRequest, ListTcpRoutesRequest,
};
use weir_proto::weir::mesh::v1 as pb;

use super::block_on;
use super::status::print_routers;
use crate::Error;
use crate::client::{Client, Connect};
use crate::documents::Object;
use crate::documents::current::Current;
use crate::output::{Format, print, print_message, print_table, print_value, seconds, table, yaml};

/// Arguments of `weir get`.
#[derive(Debug, clap::Args)]
pub struct Get {
    /// What to list
    #[arg(value_enum)]
    what: What,
    /// Only the route or the policies of this name
    name: Option<String>,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

/// What there is to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Services, their versions and weights
    Services,
    /// HTTPRoutes, GRPCRoutes, TCPRoutes and TLSRoutes
    Routes,
    /// What is attached to services and routes: kinds, names, targets
    Policies,
    /// Plans of shifts, how far they are and what they wait for
    Rollouts,
    /// Running processes of versions
    Instances,
    /// Routers, what they have applied, their certificates
    Routers,
    /// Who calls whom, how often, how well: the last ten seconds
    Edges,
}

impl Get {
    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub fn run(self) -> Result<(), Error> {
        let format = self.connect.output;
        if self.name.is_some()
            && !matches!(self.what, What::Routes | What::Policies | What::Rollouts)
        {
            return Err(Error::new("only routes, policies and rollouts are asked for by name"));
        }
        let name = self.name.as_deref();
        block_on(async {
            let client = self.connect.client().await?;
            match self.what {
                What::Services => services(client, format).await,
                What::Routes => routes(client, format, name).await,
                What::Policies => policies(client, format, name).await,
                What::Rollouts => rollouts(client, format, name).await,
                What::Instances => instances(client, format).await,
                What::Routers => routers(client, format).await,
                What::Edges => edges(client, format).await,
            }
        })
    }
}

async fn services(mut client: Client, format: Format) -> Result<(), Error> {
    let answer = client.list_services(ListServicesRequest {}).await?.into_inner();
    if format != Format::Table {
        return print_message(format, "weir.control.v1.ListServicesResponse", &answer);
    }
    let header = [
        "SERVICE",
        "PROTOCOL",
        "WEIGHTS",
        "STICKY",
        "HEALTHY",
        "SOURCE",
        "MANAGED BY",
        "LAST CHANGE",
    ];
    let mut table = table(header);
    for status in answer.services {
        let service = status.service.unwrap_or_default();
        table.add_row([
            service.name.clone(),
            protocol(service.protocol()).to_owned(),
            weights(&service.versions),
            service.sticky.as_ref().map_or("none".to_owned(), sticky),
            format!("{}/{}", status.healthy_instances, status.instances),
            match status.sources.as_slice() {
                [] => "gone".to_owned(),
                sources => sources.join(", "),
            },
            if status.managed_by.is_empty() { "-".to_owned() } else { status.managed_by },
            match status.revision {
                0 => "-".to_owned(),
                revision => format!("revision {revision}"),
            },
        ]);
    }
    print_table(&table)
}

async fn rollouts(client: Client, format: Format, name: Option<&str>) -> Result<(), Error> {
    if format == Format::Table && name.is_none() {
        return super::rollout::list(client, String::new(), format).await;
    }
    let rollouts = |object: &Object| matches!(object, Object::Rollout { .. });
    let format = if format == Format::Table { Format::Yaml } else { format };
    documents(client, format, name, "rollouts", rollouts).await
}

async fn routes(mut client: Client, format: Format, name: Option<&str>) -> Result<(), Error> {
    if format != Format::Table {
        let routes = |object: &Object| matches!(object, Object::Route(_) | Object::TcpRoute(_));
        return documents(client, format, name, "routes", routes).await;
    }
    let mut answer = client.list_routes(ListRoutesRequest {}).await?.into_inner();
    let mut of_connections = client.list_tcp_routes(ListTcpRoutesRequest {}).await?.into_inner();
    if let Some(name) = name {
        let names = answer.routes.iter().map(|route| &route.name);
        let names = names.chain(of_connections.routes.iter().map(|route| &route.name));
        let names: Vec<_> = names.cloned().collect();
        answer.routes.retain(|route| route.name == name);
        of_connections.routes.retain(|route| route.name == name);
        if answer.routes.is_empty() && of_connections.routes.is_empty() {
            return Err(missing("routes", name, names));
        }
    }
    let mut table = table(["ROUTE", "KIND", "PARENTS", "HOSTNAMES", "MATCHES", "BACKENDS"]);
    for route in answer.routes {
        let kind = match route.kind() {
            pb::route::Kind::GrpcRoute => "GRPCRoute",
            _ => "HTTPRoute",
        };
        let parents: Vec<_> = route
            .parent_refs
            .iter()
            .map(|parent| format!("{}/{}", parent.kind.to_lowercase(), parent.name))
            .collect();
        for (i, rule) in route.rules.iter().enumerate() {
            let first = |text: String| if i == 0 { text } else { String::new() };
            table.add_row([
                first(route.name.clone()),
                first(kind.to_owned()),
                first(parents.join("\n")),
                first(if route.hostnames.is_empty() {
                    "*".to_owned()
                } else {
                    route.hostnames.join("\n")
                }),
                matches(rule),
                backends(rule),
            ]);
        }
    }
    for route in of_connections.routes {
        table.add_row(tcp_route(&route));
    }
    print_table(&table)
}

/// The row of a TCPRoute or TLSRoute.
fn tcp_route(route: &pb::TcpRoute) -> [String; 6] {
    let kind = match route.kind() {
        pb::tcp_route::Kind::TlsRoute => "TLSRoute",
        _ => "TCPRoute",
    };
    let parent = |parent: &pb::TcpParentRef| {
        let kind = parent.kind.to_lowercase();
        match (parent.section_name.as_str(), parent.port) {
            ("", 0) => format!("{kind}/{}", parent.name),
            ("", port) => format!("{kind}/{}:{port}", parent.name),
            (section, _) => format!("{kind}/{}/{section}", parent.name),
        }
    };
    let parents: Vec<_> = route.parent_refs.iter().map(parent).collect();
    let hostnames = route.hostnames.join("\n");
    [
        route.name.clone(),
        kind.to_owned(),
        parents.join("\n"),
        if hostnames.is_empty() { "*".to_owned() } else { hostnames },
        "connections".to_owned(),
        shares(&route.backend_refs),
    ]
}

async fn policies(client: Client, format: Format, name: Option<&str>) -> Result<(), Error> {
    let policies = |object: &Object| matches!(object, Object::Policy(_));
    if format != Format::Table {
        return documents(client, format, name, "policies", policies).await;
    }
    let mut table = table(["KIND", "NAME", "TARGETS"]);
    for object in objects(client, name, "policies", policies).await? {
        let Object::Policy(policy) = &object else { continue };
        let targets: Vec<_> = policy.targets.iter().map(ToString::to_string).collect();
        let none = || "- (routes refer to it)".to_owned();
        table.add_row([
            policy.kind.as_str().to_owned(),
            policy.name.to_string(),
            if targets.is_empty() { none() } else { targets.join("\n") },
        ]);
    }
    print_table(&table)
}

/// Objects of one kind, or those of one name.
async fn objects(
    mut client: Client,
    name: Option<&str>,
    what: &str,
    wanted: impl Fn(&Object) -> bool,
) -> Result<Vec<Object>, Error> {
    let mut objects = Current::fetch(&mut client).await?.objects;
    objects.retain(|object| wanted(object));
    if let Some(name) = name {
        let names: Vec<_> = objects.iter().map(|object| object.name().to_owned()).collect();
        objects.retain(|object| object.name() == name);
        if objects.is_empty() {
            return Err(missing(what, name, names));
        }
    }
    Ok(objects)
}

/// Prints documents such that `weir apply -f -` reads them: in YAML one after
/// the other, in JSON one, or all as a List.
async fn documents(
    client: Client,
    format: Format,
    name: Option<&str>,
    what: &str,
    wanted: impl Fn(&Object) -> bool,
) -> Result<(), Error> {
    let objects = objects(client, name, what, wanted).await?;
    let documents: Vec<_> = objects.iter().map(Object::to_document).collect();
    if format == Format::Yaml {
        let texts: Result<Vec<_>, _> = documents.iter().map(yaml).collect();
        return print(&texts?.join("---\n"));
    }
    match documents.as_slice() {
        [one] if name.is_some() => print_value(format, one),
        all => {
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": all});
            print_value(format, &list)
        }
    }
}

fn missing(what: &str, name: &str, mut names: Vec<String>) -> Error {
    names.sort();
    names.dedup();
    match names.as_slice() {
        [] => Error::new(format!("no {what} are called {name:?}; there are none yet")),
        _ => Error::new(format!("no {what} are called {name:?}; there are: {}", names.join(", "))),
    }
}

async fn instances(mut client: Client, format: Format) -> Result<(), Error> {
    let request = ListInstancesRequest::default();
    let answer = client.list_instances(request).await?.into_inner();
    if format != Format::Table {
        return print_message(format, "weir.control.v1.ListInstancesResponse", &answer);
    }
    let mut table = table(["INSTANCE", "SERVICE", "VERSION", "ADDRESS", "BY", "ZONE", "HEALTH"]);
    for instance in answer.instances {
        let health = if instance.healthy { "healthy" } else { "unhealthy" };
        table.add_row([
            instance.id,
            instance.service,
            instance.version,
            instance.address,
            if instance.plain { "plain" } else { "mTLS" }.to_owned(),
            instance.zone,
            health.to_owned(),
        ]);
    }
    print_table(&table)
}

async fn routers(mut client: Client, format: Format) -> Result<(), Error> {
    let answer = client.list_routers(ListRoutersRequest {}).await?.into_inner();
    match format {
        Format::Table => print_routers(&answer),
        format => print_message(format, "weir.control.v1.ListRoutersResponse", &answer),
    }
}

async fn edges(mut client: Client, format: Format) -> Result<(), Error> {
    let answer = client.list_edges(ListEdgesRequest {}).await?.into_inner();
    if format != Format::Table {
        return print_message(format, "weir.control.v1.ListEdgesResponse", &answer);
    }
    let header = ["FROM", "TO", "VERSION", "RATE", "SUCCESS", "P50", "P99", "REQUESTS", "FAILED"];
    let mut table = table(header);
    for edge in answer.edges {
        let success = success(&edge);
        table.add_row([
            edge.source,
            edge.destination,
            edge.version,
            format!("{:.1}/s", edge.rate),
            success,
            seconds(edge.p50_seconds),
            seconds(edge.p99_seconds),
            edge.requests.to_string(),
            edge.failures.to_string(),
        ]);
    }
    print_table(&table)
}

/// The share of requests that succeeded; a dash when there were none.
#[must_use]
pub fn success(edge: &EdgeStatus) -> String {
    if edge.rate > 0.0 {
        // 99.96 must not be shown as if nothing had failed.
        format!("{:.2}%", (edge.success * 10_000.0).floor() / 100.0)
    } else {
        "-".to_owned()
    }
}

fn protocol(protocol: pb::Protocol) -> &'static str {
    match protocol {
        pb::Protocol::Http1 => "http1",
        pb::Protocol::Http2 => "http2",
        pb::Protocol::Grpc => "grpc",
        pb::Protocol::Tcp => "tcp",
        pb::Protocol::Unspecified => "unknown",
    }
}

/// `v1=90 v2=10`.
#[must_use]
pub fn weights(versions: &[pb::VersionWeight]) -> String {
    let all: Vec<_> =
        versions.iter().map(|version| format!("{}={}", version.version, version.weight)).collect();
    all.join(" ")
}

fn sticky(sticky: &pb::Sticky) -> String {
    match &sticky.by {
        Some(pb::sticky::By::Header(name)) => format!("header:{name}"),
        Some(pb::sticky::By::Cookie(name)) => format!("cookie:{name}"),
        Some(pb::sticky::By::User(_)) => "user".to_owned(),
        None => "none".to_owned(),
    }
}

fn matches(rule: &pb::RouteRule) -> String {
    let one = |found: &pb::RouteMatch| {
        let mut text = String::new();
        if !found.method.is_empty() {
            text.push_str(&found.method);
            text.push(' ');
        }
        text.push_str(&path(found));
        // A pattern is shown between slashes, as it is elsewhere.
        let value = |wanted: &pb::NameValue| match wanted.regex {
            true => format!("/{}/", wanted.value),
            false => wanted.value.clone(),
        };
        for header in &found.headers {
            text.push_str(&format!(" {}: {}", header.name, value(header)));
        }
        for query in &found.query_params {
            text.push_str(&format!(" ?{}={}", query.name, value(query)));
        }
        text
    };
    match rule.matches.as_slice() {
        [] => "/*".to_owned(),
        all => all.iter().map(one).collect::<Vec<_>>().join("\n"),
    }
}

fn path(found: &pb::RouteMatch) -> String {
    use pb::route_match::PathType;
    let path = if found.path.is_empty() { "/" } else { &found.path };
    match (found.path_type(), &found.grpc_method) {
        (PathType::Exact, _) => path.to_owned(),
        (PathType::RegularExpression, _) => format!("~ {path}"),
        (PathType::GrpcMethod, Some(wanted)) => {
            let part = |text: &str| if text.is_empty() { "*".to_owned() } else { text.to_owned() };
            let regex = if wanted.regex { "~ " } else { "" };
            format!("{regex}/{}/{}", part(&wanted.service), part(&wanted.method))
        }
        _ if path.ends_with('/') => format!("{path}*"),
        _ => format!("{path}/*"),
    }
}

/// What answers in place of backends.
fn instead(rule: &pb::RouteRule) -> Option<String> {
    use pb::route_filter::Filter;
    rule.filters.iter().find_map(|filter| match &filter.filter {
        Some(Filter::RequestRedirect(redirect)) => {
            let host = if redirect.hostname.is_empty() { "" } else { " " };
            let status = if redirect.status_code == 0 { 302 } else { redirect.status_code };
            Some(format!("redirect {status}{host}{}", redirect.hostname))
        }
        _ => None,
    })
}

fn backends(rule: &pb::RouteRule) -> String {
    instead(rule).unwrap_or_else(|| shares(&rule.backend_refs))
}

fn shares(refs: &[pb::BackendRef]) -> String {
    let one = |backend: &pb::BackendRef| {
        let version = if backend.version.is_empty() {
            String::new()
        } else {
            format!(" {}", backend.version)
        };
        match refs.len() {
            1 => format!("{}{version}", backend.service),
            _ => format!("{}{version} ={}", backend.service, backend.weight),
        }
    };
    refs.iter().map(one).collect::<Vec<_>>().join("\n")
}
