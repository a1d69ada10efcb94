//! `weir diff`: what applying documents would change, or what lies between two
//! revisions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};
use weir_proto::weir::control::v1::{ApplyRequest, ChangeResponse};
use weir_proto::weir::mesh::v1::Service;

use super::apply::{check_prune, resolve};
use super::block_on;
use crate::Error;
use crate::client::Connect;
use crate::documents::current::Current;
use crate::documents::diff::unified;
use crate::documents::{Documents, Files, Loaded, Object, Request};
use crate::output::{Format, colours, print, print_value, to_value, yaml};

/// Arguments of `weir diff`.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// Two revisions, instead of documents: what lies between them
    #[arg(value_name = "REVISION", num_args = 2, conflicts_with_all = ["file", "prune"])]
    revisions: Vec<u32>,
    /// Of two revisions, only this object: service/NAME, route/NAME, policy/KIND/NAME, ...
    #[arg(long, requires = "revisions", default_value = "", hide_default_value = true)]
    object: String,
    /// Documents in YAML or JSON: a file, a directory, or - for standard input. May be
    /// given several times
    #[arg(short, long, value_name = "FILE|DIR|-", required_unless_present = "revisions")]
    file: Vec<PathBuf>,
    /// As `weir apply --prune` would do it
    #[arg(long)]
    prune: bool,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

/// What there is, and what there would be, each by its name.
pub(super) type Sides = BTreeMap<String, [Option<Value>; 2]>;

impl Diff {
    /// Runs it. Exits with 0 when nothing would change, 1 when something would,
    /// and 2 when that cannot be told, as `diff` does.
    pub fn run(self) -> ExitCode {
        let compared = match *self.revisions {
            [from, to] => super::revisions::diff(&self.connect, from, to, &self.object),
            _ => self.compare(),
        };
        match compared {
            Ok(false) => ExitCode::SUCCESS,
            Ok(true) => ExitCode::from(1),
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(2)
            }
        }
    }

    fn compare(self) -> Result<bool, Error> {
        let loaded = Loaded::read(&Files::of(self.file.clone()))?;
        check_prune(&loaded, self.prune)?;
        let sides = block_on(async {
            let (mut client, documents) = resolve(loaded, self.prune, &self.connect).await?;
            let mut request = Request::new(&documents);
            request.message.prune = self.prune;
            request.message.dry_run = true;
            // What would be refused has no difference to show.
            let checked = client.apply(request.message.clone()).await;
            let answer = checked.map_err(|status| request.refused(status))?.into_inner();
            request.warnings(&answer).for_each(|line| eprintln!("{line}"));
            let current = Current::fetch(&mut client).await?;
            leave_managed(&current, &answer, &mut request.message);
            sides(&current, &documents, &request.message)
        })?;
        self.print(&sides)?;
        Ok(!sides.is_empty())
    }

    fn print(&self, sides: &Sides) -> Result<(), Error> {
        if self.connect.output != Format::Table {
            let changes: Vec<Value> = sides
                .iter()
                .map(|(name, [old, new])| json!({"object": name, "before": old, "after": new}))
                .collect();
            return print_value(self.connect.output, &json!({ "changes": changes }));
        }
        let colours = colours();
        for (name, [old, new]) in sides {
            let text = |value: &Option<Value>| match value {
                Some(value) => yaml(value),
                None => Ok(String::new()),
            };
            let names = (format!("mesh/{name}"), format!("files/{name}"));
            let (old, new) = (text(old)?, text(new)?);
            print(&unified(&old, &new, (&names.0, &names.1), colours))?;
        }
        Ok(())
    }
}

/// Gives services whose weights others manage what they have: applying leaves it. That
/// it does is told by warnings.
fn leave_managed(current: &Current, answer: &ChangeResponse, request: &mut ApplyRequest) {
    for warning in &answer.warnings {
        if !matches!(warning.name.as_str(), "ManagedByRollout" | "ManagedByOther") {
            continue;
        }
        let index = warning.field.strip_prefix("services[").and_then(|rest| rest.split_once(']'));
        let sent =
            index.and_then(|(index, _)| request.services.get_mut(index.parse::<usize>().ok()?));
        let Some(sent) = sent else { continue };
        let Some(there) = current.services.iter().find(|there| there.name == sent.name) else {
            continue;
        };
        sent.audiences.clone_from(&there.audiences);
        sent.mirror.clone_from(&there.mirror);
        weigh_as(sent, there);
    }
}

/// Gives versions another's order and weights; those that it lacks come last, with none.
fn weigh_as(sent: &mut Service, there: &Service) {
    let place = |name: &str| there.versions.iter().position(|other| other.version == name);
    for version in &mut sent.versions {
        let held = place(&version.version).and_then(|at| there.versions.get(at));
        version.weight = held.map_or(0, |held| held.weight);
    }
    sent.versions.sort_by_key(|version| place(&version.version).unwrap_or(usize::MAX));
}

/// What would be different.
pub(super) fn sides(
    current: &Current,
    documents: &Documents,
    request: &ApplyRequest,
) -> Result<Sides, Error> {
    let mut sides = Sides::new();
    let mut put = |name: String, side: usize, value: Value| {
        sides.entry(name).or_default()[side] = Some(value);
    };
    for service in &current.services {
        put(format!("service/{}", service.name), 0, service_value(service)?);
    }
    for service in &request.services {
        put(format!("service/{}", service.name), 1, service_value(service)?);
    }
    let name = |object: &Object| format!("{}/{}", object.key().0, object.key().1);
    for object in &current.objects {
        put(name(object), 0, object.to_document());
    }
    let of_mesh = documents.mesh.iter().flat_map(|(_, mesh)| {
        let routes = mesh.routes.iter().cloned().map(Object::Route);
        let tcp = mesh.tcp_routes.iter().cloned().map(Object::TcpRoute);
        routes.chain(tcp).chain(mesh.policies.iter().cloned().map(Object::Policy))
    });
    for object in of_mesh.chain(documents.objects.iter().map(|(_, object)| object.clone())) {
        put(name(&object), 1, object.to_document());
    }
    let prune = request.prune;
    // Without --prune, what is not named stays.
    sides.retain(|_, [old, new]| old != new && (prune || new.is_some()));
    Ok(sides)
}

/// A service as the API has it. Its descriptor set is no text, and lists of
/// services leave it out.
fn service_value(service: &Service) -> Result<Value, Error> {
    let mut value = to_value("weir.mesh.v1.Service", service)?;
    if let Some(map) = value.as_object_mut() {
        map.remove("descriptorSet");
    }
    Ok(without_nothing(value))
}

/// Without null and empty lists, which say nothing.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, without_nothing(value)));
            let nothing = |value: &Value| value.is_null() || *value == json!([]);
            Value::Object(kept.filter(|(_, value)| !nothing(value)).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(without_nothing).collect(),
        other => other,
    }
}
