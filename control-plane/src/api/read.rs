//! Reads.

use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;

use tonic::Status;
use weir_mesh::model::{Invalid, Service, ServiceName, Sticky};
use weir_proto::weir::control::v1 as pb;
use weir_proto::weir::mesh::v1 as mesh;

use super::error;
use crate::consul;
use crate::control::Control;
use crate::registry::{Presence, Role, Router};
use crate::store::{Change, Entry, Object, ObjectKey, StoreError};
use crate::text::{hex, rfc3339};
use crate::traces::Span;

/// Largest `limit`.
const MAX_LIMIT: u32 = 1000;

fn limit(asked: u32, default: usize) -> Result<usize, Status> {
    match asked {
        0 => Ok(default),
        1..=MAX_LIMIT => Ok(asked as usize),
        _ => {
            let why = format!("{asked} is above {MAX_LIMIT}");
            Err(error::invalid(&Invalid::one("limit", why)))
        }
    }
}

fn service_name(name: &str) -> Result<ServiceName, Status> {
    name.parse().map_err(|e| error::invalid(&Invalid::one("service", format!("{e}"))))
}

pub(super) fn mesh(control: &Control) -> pb::Mesh {
    pb::Mesh {
        trust_domain: control.trust_domain.to_string(),
        revision: control.desired.borrow().revision,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sequence: control.publisher.newest(),
        catalogues: control
            .consul
            .as_ref()
            .map(|consul| catalogue(&consul.status()))
            .into_iter()
            .collect(),
    }
}

fn catalogue(status: &consul::Status) -> pb::Catalogue {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    pb::Catalogue {
        name: "consul".to_owned(),
        address: status.address.clone(),
        in_touch: status.trouble.is_none(),
        trouble: status.trouble.clone().unwrap_or_default(),
        seconds: status.since.elapsed().as_secs(),
        services: count(status.services),
        instances: count(status.instances),
        skipped: status.skipped.clone(),
        registered: count(status.registered),
    }
}

pub(super) fn services(control: &Control) -> pb::ListServicesResponse {
    let instances = control.instances();
    let desired = control.desired.borrow();
    let status = |name: &ServiceName, service: &Service, revision| {
        let own = instances.iter().filter(|i| i.service == *name);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let service = mesh::Service { descriptor_set: Bytes::new(), ..service.into() };
        pb::ServiceStatus {
            service: Some(service),
            healthy_instances: count(own.clone().filter(|i| i.healthy).count()),
            instances: count(own.count()),
            revision,
            sources: desired.sources(name).into_iter().map(str::to_owned).collect(),
            managed_by: desired.manager(name).unwrap_or_default(),
        }
    };
    let services = desired.services.iter();
    let services = services.map(|(name, held)| status(name, &held.value, held.revision)).collect();
    pb::ListServicesResponse { services }
}

pub(super) fn service(control: &Control, name: &str) -> Result<mesh::Service, Status> {
    let name = service_name(name)?;
    let desired = control.desired.borrow();
    let held = desired.services.get(&name);
    let held = held.ok_or_else(|| Status::not_found(format!("no service {name}")))?;
    Ok((&*held.value).into())
}

pub(super) fn routes(control: &Control) -> pb::ListRoutesResponse {
    let desired = control.desired.borrow();
    let routes = desired.routes.values().map(|held| (&*held.value).into()).collect();
    pb::ListRoutesResponse { routes }
}

pub(super) fn policies(control: &Control) -> pb::ListPoliciesResponse {
    let desired = control.desired.borrow();
    let policies = desired.policies.values().map(|held| (&*held.value).into()).collect();
    pb::ListPoliciesResponse { policies }
}

pub(super) fn snapshot(control: &Control) -> Result<mesh::Snapshot, Status> {
    let newest = control.publisher.watch(Role::Sidecar).borrow().clone();
    mesh::Snapshot::decode(newest.bytes.clone()).map_err(|e| Status::internal(e.to_string()))
}

pub(super) fn tcp_routes(control: &Control) -> pb::ListTcpRoutesResponse {
    let desired = control.desired.borrow();
    let routes = desired.tcp_routes.values().map(|held| (&*held.value).into()).collect();
    pb::ListTcpRoutesResponse { routes }
}

pub(super) fn instances(
    control: &Control,
    service: &str,
) -> Result<pb::ListInstancesResponse, Status> {
    let only = if service.is_empty() { None } else { Some(service_name(service)?) };
    let wanted = |service: &ServiceName| only.as_ref().is_none_or(|only| only == service);
    let instances = control.instances();
    let instances = instances.iter().filter(|i| wanted(&i.service)).map(Into::into).collect();
    Ok(pb::ListInstancesResponse { instances })
}

pub(super) async fn history(
    control: &Arc<Control>,
    request: pb::ListHistoryRequest,
) -> Result<pb::ListHistoryResponse, Status> {
    let limit = limit(request.limit, 50)?;
    let of = match (request.service.as_str(), request.object.as_str()) {
        ("", "") => None,
        ("", object) => {
            let key = object.parse::<ObjectKey>();
            let why = "such as service/products, route/web or policy/RateLimitPolicy/login";
            let wrong =
                |e| error::invalid(&Invalid::one("object", format!("{e}; write one {why}")));
            Some(key.map_err(wrong)?)
        }
        (name, "") => Some(ObjectKey::Service(service_name(name)?)),
        _ => {
            let why = "cannot be set together with service; leave one out";
            return Err(error::invalid(&Invalid::one("object", why.to_owned())));
        }
    };
    let control = control.clone();
    let read = tokio::task::spawn_blocking(move || {
        let entries = control.store.history(of.as_ref(), limit)?;
        Ok::<_, StoreError>((of, entries))
    });
    let read = read.await.map_err(|lost| StoreError::Task(lost.to_string()));
    let (of, entries) = read.flatten().map_err(|e| error::store(&e))?;
    if let Some(of) = &of
        && entries.is_empty()
    {
        return Err(Status::not_found(format!("there never was a {of}")));
    }
    Ok(pb::ListHistoryResponse { entries: entries.iter().map(entry).collect() })
}

fn entry(entry: &Entry) -> pb::HistoryEntry {
    pb::HistoryEntry {
        revision: entry.revision,
        time: rfc3339(entry.nanos),
        actor: entry.actor.clone(),
        reason: entry.reason.clone(),
        action: entry.action.as_str().to_owned(),
        objects: entry.changes.iter().map(|change| change.key.to_string()).collect(),
        changes: entry.changes.iter().map(describe).collect(),
        hash: hex(&entry.hash),
        previous_hash: hex(&entry.previous),
        idempotency_key: entry.idempotency.as_ref().map(|i| i.key.clone()).unwrap_or_default(),
    }
}

/// One line: `products: v1=100 v2=0 -> v1=90 v2=10`. Addresses are told when they
/// are what changed.
pub(super) fn describe(change: &Change) -> String {
    let name = match &change.key {
        ObjectKey::Service(name) => name.to_string(),
        ObjectKey::Route(name) => format!("route {name}"),
        ObjectKey::Policy(kind, name) => format!("{kind} {name}"),
        ObjectKey::TcpRoute(name) => format!("tcp-route {name}"),
        ObjectKey::Rollout(name) => format!("rollout {name}"),
        ObjectKey::Options => "options".to_owned(),
    };
    let moved = match (&change.before, &change.after) {
        (Some(Object::Service(a)), Some(Object::Service(b))) => a.addresses != b.addresses,
        _ => true,
    };
    let short = |object| short(object, moved);
    let (before, after) = (change.before.as_ref().map(short), change.after.as_ref().map(short));
    match (before, after) {
        (Some(before), Some(after)) if before == after => format!("{name}: changed"),
        (Some(before), Some(after)) => format!("{name}: {before} -> {after}"),
        (None, Some(after)) => format!("{name}: new, {after}"),
        (Some(before), None) => format!("{name}: removed, was {before}"),
        (None, None) => format!("{name}: nothing"),
    }
}

/// Some addresses of a version, and how many there are more.
fn addresses(service: &Service) -> impl Iterator<Item = String> {
    const SHOWN: usize = 4;
    service.split.versions().iter().filter_map(|(version, _)| {
        let all = service.addresses.of(version);
        let shown: Vec<_> = all.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = match all.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!all.is_empty()).then(|| format!("{version} at {}{more}", shown.join(",")))
    })
}

fn short(object: &Object, with_addresses: bool) -> String {
    match object {
        Object::Service(service) => {
            let versions = service.split.versions().iter();
            let mut words: Vec<_> =
                versions.map(|(name, weight)| format!("{name}={}", weight.get())).collect();
            words.extend(service.split.sticky.as_ref().map(|sticky| match sticky {
                Sticky::Header(name) => format!("sticky by header {name}"),
                Sticky::Cookie(name) => format!("sticky by cookie {name}"),
                Sticky::User => "sticky by user".to_owned(),
            }));
            if with_addresses {
                words.extend(addresses(service));
            }
            words.join(" ")
        }
        Object::Route(route) => match route.rules.len() {
            1 => "1 rule".to_owned(),
            n => format!("{n} rules"),
        },
        Object::Policy(policy) => {
            let targets: Vec<_> = policy.targets.iter().map(ToString::to_string).collect();
            if targets.is_empty() { "no targets".to_owned() } else { targets.join(" ") }
        }
        Object::TcpRoute(route) => match route.backends.len() {
            1 => "1 backend".to_owned(),
            n => format!("{n} backends"),
        },
        Object::Rollout(rollout) => crate::rollout::describe(rollout),
        Object::Options(options) => format!(
            "traceSampling={} showVersion={} corsOrigins={} escapedSlashes={} \
             denyByDefault={} hidePolicies={}",
            options.trace_sampling,
            options.show_version,
            options.cors_origins.join(","),
            options.escaped_slashes,
            options.deny_by_default,
            options.hide_policies
        ),
    }
}

pub(super) fn routers(control: &Control) -> pb::ListRoutersResponse {
    let routers = control.registry.routers();
    pb::ListRoutersResponse { routers: routers.into_iter().map(|r| router(control, r)).collect() }
}

fn router(control: &Control, router: Router) -> pb::RouterStatus {
    let Router { registration, presence, acks, remote, .. } = router;
    let lag = remote.map_or_else(|| control.publisher.lag(acks.sequence), |remote| remote.lag);
    let version = registration.instance.map(|i| i.version.to_string()).unwrap_or_default();
    pb::RouterStatus {
        router: registration.id.to_string(),
        role: registration.role.as_str().to_owned(),
        service: registration.service.to_string(),
        version,
        live: presence == Presence::Connected,
        applied_revision: acks.revision,
        applied_sequence: acks.sequence,
        lag,
        refused: acks.refusal.map(|refusal| refusal.reason).unwrap_or_default(),
        apply_micros: acks.apply_micros,
        certificate_not_after: registration.certificate_not_after,
        admin_address: registration.admin_address.to_string(),
    }
}

pub(super) fn edges(control: &Control) -> pb::ListEdgesResponse {
    let edges = control.edges.list().into_iter().map(|edge| pb::EdgeStatus {
        source: edge.source,
        destination: edge.destination,
        version: edge.version,
        rate: edge.rate,
        success: edge.success,
        p50_seconds: edge.p50,
        p99_seconds: edge.p99,
        requests: edge.requests,
        failures: edge.failures,
    });
    pb::ListEdgesResponse { edges: edges.collect() }
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

pub(super) fn traces(control: &Control, asked: u32) -> Result<pb::ListTracesResponse, Status> {
    let traces = control.traces.list(limit(asked, 20)?).into_iter().map(|trace| pb::TraceSummary {
        trace_id: hex(&trace.id),
        root: trace.root,
        start_time: rfc3339(trace.start),
        duration_ms: millis(trace.duration),
        spans: u32::try_from(trace.spans).unwrap_or(u32::MAX),
        error: trace.error,
    });
    Ok(pb::ListTracesResponse { traces: traces.collect() })
}

pub(super) fn trace(control: &Control, prefix: &str) -> Result<pb::Trace, Status> {
    let (id, spans) = control.traces.find(prefix).map_err(|e| error::find(&e))?;
    let start = spans.iter().map(|(span, _)| span.start).min().unwrap_or(0);
    let spans = spans.into_iter().map(|(span, depth)| trace_span(span, depth, start)).collect();
    Ok(pb::Trace { trace_id: hex(&id), spans })
}

fn trace_span(span: Span, depth: u32, start: u64) -> pb::TraceSpan {
    pb::TraceSpan {
        span_id: hex(&span.id),
        parent_span_id: span.parent.map(|id| hex(&id)).unwrap_or_default(),
        name: span.name,
        kind: span.kind.to_owned(),
        service: span.service.to_string(),
        version: span.version.to_string(),
        start_ms: millis(span.start - start),
        duration_ms: millis(span.end - span.start),
        error: span.error,
        attributes: span.attributes.into_iter().collect(),
        depth,
    }
}
