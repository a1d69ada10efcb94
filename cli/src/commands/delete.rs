//! `weir delete KIND NAME` and `weir delete -f FILE`.

use std::path::PathBuf;

use weir_mesh::policy::PolicyKind;
use weir_mesh::rollout;
use weir_proto::weir::control::v1::{
    ChangeRolloutRequest, DeletePolicyRequest, DeleteRouteRequest, DeleteTcpRouteRequest,
};

use super::block_on;
use crate::Error;
use crate::client::{Client, Connect};
use crate::documents::current::Current;
use crate::documents::{Files, Loaded, Object};
use crate::output::print;

/// Arguments of `weir delete`.
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// `HTTPRoute`, `GRPCRoute`, `route` for either, `TCPRoute`, `TLSRoute`, `Rollout`, or
    /// a kind of policy; case does not matter
    #[arg(required_unless_present = "file", conflicts_with = "file", requires = "name")]
    kind: Option<String>,
    /// Which one
    name: Option<String>,
    /// Delete what these documents name: a file, a directory, or - for standard
    /// input. May be given several times
    #[arg(short, long, value_name = "FILE|DIR|-")]
    file: Vec<PathBuf>,
    /// What is not there already is no failure
    #[arg(long)]
    ignore_not_found: bool,
    /// Goes into the history
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Makes a retry of this command safe, when it deletes one object: a second one with
    /// the same key changes nothing
    #[arg(long, value_name = "KEY", conflicts_with = "file", requires = "kind")]
    idempotency_key: Option<String>,
    /// Refuse unless the object's last revision is this one
    #[arg(long, value_name = "REVISION", conflicts_with = "file", requires = "kind")]
    #[arg(default_value_t = 0, hide_default_value = true)]
    expected_revision: u32,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

/// What a kind on the command line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Route(Option<&'static str>),
    TcpRoute(&'static str),
    Policy(PolicyKind),
    Rollout,
}

impl Delete {
    /// Runs it.
    ///
    /// # Errors
    /// Nothing of that kind and name is there, or the API's.
    pub fn run(self) -> Result<(), Error> {
        let wanted = match (&self.kind, &self.name) {
            (Some(kind), Some(name)) => Some((self::kind(kind)?, name.clone())),
            _ => None,
        };
        block_on(async {
            let mut client = self.connect.client().await?;
            let current = Current::fetch(&mut client).await?;
            let wanted: Vec<(Kind, String)> = match wanted {
                Some(one) => vec![one],
                None => named_by(self.file, &current)?,
            };
            let mut found = Vec::with_capacity(wanted.len());
            let mut missing = Vec::new();
            for (kind, name) in &wanted {
                match current.objects.iter().find(|object| is(object, *kind, name)) {
                    Some(object) => found.push(object),
                    None => missing.push(format!("no {} {name:?}", kind.as_str())),
                }
            }
            if let (Some(key), [(kind, name)], []) =
                (&self.idempotency_key, wanted.as_slice(), found.as_slice())
            {
                // Perhaps an earlier try with this key has deleted it.
                let ask = (self.reason.as_str(), key.as_str(), self.expected_revision);
                let revision = delete(&mut client, *kind, name, ask).await?;
                return print(&format!(
                    "{} {name}: deleted before, revision {revision}\n",
                    kind.as_str()
                ));
            }
            if !missing.is_empty() && !self.ignore_not_found {
                return Err(Error::of_lines(missing).with([
                    "nothing was deleted; `weir get routes` and `weir get policies` list what \
                     there is"
                        .to_owned(),
                ]));
            }
            // A policy that is attached keeps its route from going, and a route the
            // filters that it refers to.
            found.sort_by_key(|object| match object {
                Object::Policy(policy) if policy.targets.is_empty() => 2,
                Object::Policy(_) => 0,
                _ => 1,
            });
            for object in found {
                let key = self.idempotency_key.as_deref().unwrap_or_default();
                let ask = (self.reason.as_str(), key, self.expected_revision);
                let revision = delete(&mut client, kind_of(object), object.name(), ask).await?;
                print(&format!(
                    "{} {}: deleted, revision {revision}\n",
                    object.kind(),
                    object.name()
                ))?;
            }
            Ok(())
        })
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Route(None) => "route",
            Self::Route(Some(kind)) | Self::TcpRoute(kind) => kind,
            Self::Policy(kind) => kind.as_str(),
            Self::Rollout => rollout::KIND,
        }
    }
}

/// Singular or plural, in any case: `httproute`, `HTTPRoutes`, `ratelimitpolicy`.
fn kind(text: &str) -> Result<Kind, Error> {
    let lower = text.to_ascii_lowercase();
    let singular = match lower.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => lower.trim_end_matches('s').to_owned(),
    };
    match singular.as_str() {
        "route" => return Ok(Kind::Route(None)),
        "rollout" => return Ok(Kind::Rollout),
        "httproute" => return Ok(Kind::Route(Some("HTTPRoute"))),
        "grpcroute" => return Ok(Kind::Route(Some("GRPCRoute"))),
        "tcproute" => return Ok(Kind::TcpRoute("TCPRoute")),
        "tlsroute" => return Ok(Kind::TcpRoute("TLSRoute")),
        "service" | "mesh" => {
            return Err(Error::new(
                "services are what a mesh file says; take it out there, and run `weir apply -f \
                 FILE --prune`",
            ));
        }
        _ => {}
    }
    let found = PolicyKind::ALL.iter().find(|kind| kind.as_str().eq_ignore_ascii_case(&singular));
    found.map(|kind| Kind::Policy(*kind)).ok_or_else(|| {
        let kinds = PolicyKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
        Error::new(format!(
            "{text:?} is no kind that can be deleted; use HTTPRoute, GRPCRoute, route, TCPRoute, \
             TLSRoute, {kinds}"
        ))
    })
}

fn is(object: &Object, kind: Kind, name: &str) -> bool {
    let same_kind = match (object, kind) {
        (Object::Route(_), Kind::Route(kind)) => kind.is_none_or(|kind| kind == object.kind()),
        (Object::TcpRoute(_), Kind::TcpRoute(kind)) => kind == object.kind(),
        (Object::Policy(policy), Kind::Policy(kind)) => policy.kind == kind,
        (Object::Rollout { .. }, Kind::Rollout) => true,
        _ => false,
    };
    same_kind && object.name() == name
}

/// What documents name, a mesh file's routes and policies left out: it is the
/// whole mesh, and nobody means that.
fn named_by(file: Vec<PathBuf>, current: &Current) -> Result<Vec<(Kind, String)>, Error> {
    let loaded = Loaded::read(&Files::of(file))?;
    if loaded.has_mesh() {
        return Err(Error::new(
            "a mesh file is a whole mesh, which is not deleted; name routes and policies, or \
             apply a mesh file without them by --prune",
        ));
    }
    let documents = loaded.resolve(current.names())?;
    let name = |object: &Object| match object {
        Object::Route(route) => (Kind::Route(Some(object.kind())), route.name.to_string()),
        Object::TcpRoute(route) => (Kind::TcpRoute(object.kind()), route.name.to_string()),
        Object::Policy(policy) => (Kind::Policy(policy.kind), policy.name.to_string()),
        Object::Rollout { name, .. } => (Kind::Rollout, name.to_string()),
    };
    Ok(documents.objects.iter().map(|(_, object)| name(object)).collect())
}

fn kind_of(object: &Object) -> Kind {
    match object {
        Object::Route(_) => Kind::Route(Some(object.kind())),
        Object::TcpRoute(_) => Kind::TcpRoute(object.kind()),
        Object::Policy(policy) => Kind::Policy(policy.kind),
        Object::Rollout { .. } => Kind::Rollout,
    }
}

/// Deletes one object for a reason, once for a key, if it is at a revision.
async fn delete(
    client: &mut Client,
    kind: Kind,
    name: &str,
    (reason, key, expected_revision): (&str, &str, u32),
) -> Result<u32, Error> {
    let (name, reason, idempotency_key) = (name.to_owned(), reason.to_owned(), key.to_owned());
    let answer = match kind {
        Kind::Route(_) => {
            let request = DeleteRouteRequest { name, reason, idempotency_key, expected_revision };
            client.delete_route(request).await?
        }
        Kind::TcpRoute(_) => {
            let request =
                DeleteTcpRouteRequest { name, reason, idempotency_key, expected_revision };
            client.delete_tcp_route(request).await?
        }
        Kind::Policy(kind) => {
            let kind = kind.as_str().to_owned();
            let request =
                DeletePolicyRequest { kind, name, reason, idempotency_key, expected_revision };
            client.delete_policy(request).await?
        }
        Kind::Rollout => {
            let request = ChangeRolloutRequest { name, reason, idempotency_key, expected_revision };
            client.delete_rollout(request).await?
        }
    };
    Ok(answer.into_inner().revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_people_write_them() {
        for text in ["httproute", "HTTPRoute", "httproutes"] {
            assert_eq!(kind(text).unwrap(), Kind::Route(Some("HTTPRoute")));
        }
        for policy in PolicyKind::ALL {
            let text = policy.as_str();
            assert_eq!(kind(&text.to_lowercase()).unwrap(), Kind::Policy(*policy));
        }
        assert_eq!(kind("RateLimitPolicies").unwrap(), Kind::Policy(PolicyKind::RateLimit));
        assert!(kind("service").unwrap_err().to_string().contains("--prune"));
        assert!(kind("pod").unwrap_err().to_string().contains("HTTPRoute"));
    }
}
