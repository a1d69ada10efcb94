//! Names in specs of policies: on Kubernetes they are those of the policy's own
//! namespace, in the mesh they have it.

use serde_json::Value;
use weir_mesh::model::ServiceName;

use super::grants::Referrer;
use super::policies::Context;
use super::status::Fault;
use crate::kubernetes::objects::Kind;

/// The spec as routers read it, less `targetRefs`; and the first name in it that
/// leads nowhere, which routers treat as a service that is not there.
pub(super) fn rewrite(
    context: &Context<'_>,
    kind: Kind,
    namespace: &str,
    object: &Value,
) -> (Value, Option<Fault>) {
    let mut spec = object["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("targetRefs");
    }
    let mut fault = None;
    let mut service = |value: Option<&mut Value>, at: String| {
        let Some(Value::String(name)) = value else { return };
        match look_up(context, kind, namespace, name) {
            Ok(full) => *name = full,
            Err(Fault { reason, message }) => {
                // Without a namespace it is nobody's, also where it may not be used.
                *name = "nowhere".to_owned();
                fault.get_or_insert(Fault::new(reason, format!("{at}: {message}")));
            }
        }
    };
    match kind {
        Kind::AuthorizationPolicy => {
            service(spec.pointer_mut("/external/service"), "spec.external.service".to_owned());
            for rule in
                spec.pointer_mut("/rules").and_then(Value::as_array_mut).into_iter().flatten()
            {
                peers(rule, namespace);
            }
        }
        Kind::AuthenticationPolicy => {
            service(spec.pointer_mut("/activeUser/service"), "spec.activeUser.service".to_owned());
            for (i, issuer) in entries(&mut spec, "/issuers") {
                let at = format!("spec.issuers[{i}].jwks.service");
                service(issuer.pointer_mut("/jwks/service"), at);
            }
        }
        Kind::BackendTrafficPolicy => {
            for (i, stand_in) in entries(&mut spec, "/failover") {
                service(stand_in.pointer_mut("/service"), format!("spec.failover[{i}].service"));
            }
        }
        _ => {}
    }
    (spec, fault)
}

fn entries<'a>(spec: &'a mut Value, at: &str) -> impl Iterator<Item = (usize, &'a mut Value)> {
    spec.pointer_mut(at).and_then(Value::as_array_mut).into_iter().flatten().enumerate()
}

/// `users` is one of the policy's namespace; `users.shop` and `users.shop:9090` need
/// a ReferenceGrant for another.
fn look_up(
    context: &Context<'_>,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<String, Fault> {
    // What is no name is left to who reads the spec.
    let Ok(given) = name.parse::<ServiceName>() else { return Ok(name.to_owned()) };
    let of = given.namespace().unwrap_or(namespace);
    let referrer = Referrer { kind, namespace };
    if !context.grants.allow(referrer, Kind::Service, of, given.label()) {
        let kind = kind.as_str();
        let why = format!("no ReferenceGrant in {of} lets a {kind} of {namespace} use {name}");
        return Err(Fault::new("RefNotPermitted", why));
    }
    let service = context.services.get(of, given.label());
    let port = service.and_then(|service| match given.port() {
        None => service.ports.first(),
        Some(number) => service.port(number),
    });
    port.map(|port| port.service.to_string()).ok_or_else(|| {
        let why = format!("no Service {} with such a TCP port in namespace {of}", given.label());
        Fault::new("BackendNotFound", why)
    })
}

/// Callers by name are service accounts of the policy's namespace, unless they have
/// another.
fn peers(rule: &mut Value, namespace: &str) {
    for field in ["/from/services", "/from/notServices"] {
        for name in rule.pointer_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::String(name) = name
                && !name.contains('/')
            {
                *name = format!("{namespace}/{name}");
            }
        }
    }
}
