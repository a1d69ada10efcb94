//! The least role for each method of the API, and what a request is about.

use prost::Message;
use weir_proto::weir::control::v1 as pb;

use super::Role;

/// Where the methods of [`ROLES`] are.
const SERVICE: &str = "/weir.control.v1.ControlService/";
/// A client asks what the API has, before it calls it.
const REFLECTION: &str = "/grpc.reflection.";
/// Bytes of a name that a refusal repeats.
const MAX_OBJECT: usize = 120;

/// Every method, by the least role that may call it. What a method checks further
/// (the service of a shift, the dry run of `Apply`) is not here.
#[rustfmt::skip]
const ROLES: &[(&str, Role)] = &[
    ("GetMesh", Role::Viewer),
    // With `dry_run`: nothing changes. Without, it asks for an operator itself.
    ("Apply", Role::Viewer),
    ("ListServices", Role::Viewer),
    ("GetService", Role::Viewer),
    ("Shift", Role::Shifter),
    ("Rollback", Role::Shifter),
    ("ListHistory", Role::Viewer),
    ("GetRevision", Role::Viewer),
    ("DiffRevisions", Role::Viewer),
    ("VerifyHistory", Role::Viewer),
    ("Export", Role::Viewer),
    ("ListRollouts", Role::Viewer),
    ("GetRollout", Role::Viewer),
    ("StartRollout", Role::Shifter),
    ("PauseRollout", Role::Shifter),
    ("ResumeRollout", Role::Shifter),
    ("PromoteRollout", Role::Shifter),
    ("AbortRollout", Role::Shifter),
    ("DeleteRollout", Role::Shifter),
    ("WatchRollout", Role::Viewer),
    ("WhoAmI", Role::Viewer),
    ("ListReplicas", Role::Viewer),
    ("ListRoutes", Role::Viewer),
    ("PutRoute", Role::Operator),
    ("DeleteRoute", Role::Operator),
    ("ListPolicies", Role::Viewer),
    ("DeletePolicy", Role::Operator),
    ("GetSnapshot", Role::Viewer),
    ("ListTcpRoutes", Role::Viewer),
    ("PutTcpRoute", Role::Operator),
    ("DeleteTcpRoute", Role::Operator),
    ("ListInstances", Role::Viewer),
    ("ListRouters", Role::Viewer),
    ("ListEdges", Role::Viewer),
    ("ListTraces", Role::Viewer),
    ("GetTrace", Role::Viewer),
    ("RotateCertificates", Role::Admin),
];

/// The least role that may call a gRPC path. What is not known is for nobody less
/// than an admin.
#[must_use]
pub fn least(path: &str) -> Role {
    if path.starts_with(REFLECTION) {
        return Role::Viewer;
    }
    let known = path.strip_prefix(SERVICE);
    let found = known.and_then(|method| ROLES.iter().find(|(name, _)| *name == method));
    found.map_or(Role::Admin, |(_, role)| *role)
}

/// A gRPC path's method: `Shift`; of another service than the API's, the whole path.
#[must_use]
pub fn name(path: &str) -> String {
    plain(path.strip_prefix(SERVICE).unwrap_or(path))
}

/// What a request would change, as the history names objects; none when it names
/// none, or cannot be read.
#[must_use]
pub fn object(path: &str, message: &[u8]) -> Option<String> {
    fn named<M: Message + Default>(
        message: &[u8],
        kind: &str,
        name: impl Fn(M) -> String,
    ) -> Option<String> {
        let name = plain(&name(M::decode(message).ok()?));
        (!name.is_empty()).then(|| format!("{kind}/{name}"))
    }
    match path.strip_prefix(SERVICE)? {
        "Shift" => named(message, "service", |m: pb::ShiftRequest| m.service),
        "Rollback" => named(message, "service", |m: pb::RollbackRequest| m.service),
        "PutRoute" => {
            named(message, "route", |m: pb::PutRouteRequest| m.route.unwrap_or_default().name)
        }
        "DeleteRoute" => named(message, "route", |m: pb::DeleteRouteRequest| m.name),
        "PutTcpRoute" => named(message, "tcp-route", |m: pb::PutTcpRouteRequest| {
            m.route.unwrap_or_default().name
        }),
        "DeleteTcpRoute" => named(message, "tcp-route", |m: pb::DeleteTcpRouteRequest| m.name),
        "DeletePolicy" => {
            named(message, "policy", |m: pb::DeletePolicyRequest| format!("{}/{}", m.kind, m.name))
        }
        "StartRollout" => named(message, "rollout", |m: pb::StartRolloutRequest| {
            m.rollout.unwrap_or_default().name
        }),
        "PromoteRollout" => named(message, "rollout", |m: pb::PromoteRolloutRequest| m.name),
        "PauseRollout" | "ResumeRollout" | "AbortRollout" | "DeleteRollout" => {
            named(message, "rollout", |m: pb::ChangeRolloutRequest| m.name)
        }
        _ => None,
    }
}

/// A caller's own words, short and without what would disturb a terminal.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_OBJECT).collect()
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorSet;
    use weir_proto::descriptors;

    use super::*;

    #[test]
    fn every_method_has_a_role_and_no_other_has() {
        let set = FileDescriptorSet::decode(descriptors::CONTROL).unwrap();
        let file =
            set.file.iter().find(|f| f.package() == "weir.control.v1" && !f.service.is_empty());
        let service = &file.unwrap().service[0];
        assert_eq!(format!("/weir.control.v1.{}/", service.name()), SERVICE);
        let mut declared: Vec<_> = service.method.iter().map(|m| m.name().to_owned()).collect();
        let mut listed: Vec<_> = ROLES.iter().map(|(name, _)| (*name).to_owned()).collect();
        declared.sort();
        listed.sort();
        assert_eq!(declared, listed);
    }

    #[test]
    fn what_nobody_listed_is_an_admins() {
        assert_eq!(least("/weir.control.v1.ControlService/Nothing"), Role::Admin);
        assert_eq!(least("/weir.control.v1.PeerService/Follow"), Role::Admin);
        assert_eq!(
            least("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
            Role::Viewer
        );
    }
}
