//! Which versions a Service has, and what each of them gets.

use std::collections::BTreeMap;

use serde_json::json;
use weir_mesh::model::{Instance, Split, VersionName, Weight};
use weir_mesh::traffic_split::{self, TrafficSplit};

use super::StatusUpdate;
use super::endpoints::Instances;
use super::policies;
use super::services::{KubeService, Port, Services};
use super::status::Fault;
use crate::kubernetes::objects::{Kind, Objects};

/// By namespace and name, those that can be followed.
pub(super) type Splits<'a> = BTreeMap<(&'a str, &'a str), TrafficSplit>;

/// Reads all TrafficSplits, and says of each whether it is followed.
pub(super) fn splits<'a>(
    objects: &'a Objects,
    services: &Services<'_>,
    instances: &Instances,
    statuses: &mut Vec<StatusUpdate>,
) -> Splits<'a> {
    let mut splits = Splits::new();
    for (namespace, name, object) in objects.all(Kind::TrafficSplit) {
        let split = traffic_split::read(&object["spec"], "spec")
            .map_err(|invalid| Fault::new("Invalid", invalid.to_string()));
        let service = services.get(namespace, name).ok_or_else(|| {
            let why = format!("no Service {name} with TCP ports in namespace {namespace}");
            Fault::new("TargetNotFound", why)
        });
        let accepted = split.as_ref().map(drop).map_err(Clone::clone);
        let accepted = accepted.and(service.as_ref().map(drop).map_err(Clone::clone));
        let message = service.ok().map(|service| seen(service, instances)).unwrap_or_default();
        let reference = json!({ "group": "", "kind": "Service", "name": name });
        let ancestor = policies::Ancestor { reference, accepted, message, unresolved: None };
        statuses.push(policies::update(
            Kind::TrafficSplit,
            namespace,
            name,
            object,
            vec![ancestor],
        ));
        splits.extend(split.ok().map(|split| ((namespace, name), split)));
    }
    splits
}

/// Which versions a Service's pods have, to be compared with those of the split.
fn seen(service: &KubeService<'_>, instances: &Instances) -> String {
    let of_port = |port: &Port<'_>| instances.get(&port.service);
    let all = service.ports.iter().filter_map(of_port).flat_map(BTreeMap::values);
    let versions: Vec<_> = count(all).into_keys().map(|version| version.to_string()).collect();
    match versions.is_empty() {
        true => "there are no pods".to_owned(),
        false => format!("versions of its pods: {}", versions.join(", ")),
    }
}

/// Versions and how many instances of each are ready.
fn count<'a>(instances: impl Iterator<Item = &'a Instance>) -> BTreeMap<VersionName, u32> {
    let mut counts = BTreeMap::new();
    for instance in instances {
        *counts.entry(instance.version.clone()).or_default() += u32::from(instance.healthy);
    }
    counts
}

/// The split of one port: as a TrafficSplit says, else by ready instances, as
/// Kubernetes itself divides connections.
pub(super) fn split<'a>(
    wanted: Option<&TrafficSplit>,
    instances: impl Iterator<Item = &'a Instance>,
) -> Option<Split> {
    let counts = count(instances);
    let Some(wanted) = wanted.map(|wanted| &wanted.split) else { return by_count(counts) };
    let mut versions = wanted.versions().to_vec();
    let others = counts.into_keys().filter(|version| wanted.weight(version.as_str()).is_none());
    versions.extend(others.map(|version| (version, Weight::default())));
    Split::new(versions, wanted.sticky.clone()).ok()
}

fn by_count(mut counts: BTreeMap<VersionName, u32>) -> Option<Split> {
    if counts.is_empty() {
        counts.insert(VersionName::unsaid(), 1);
    }
    let idle = counts.values().all(|ready| *ready == 0);
    let weight = |ready: u32| match idle {
        true => 1,
        false => i64::from(ready.min(Weight::MAX)),
    };
    let weighted = counts.into_iter().map(|(version, ready)| {
        Weight::try_from(weight(ready)).ok().map(|weight| (version, weight))
    });
    Split::new(weighted.collect::<Option<_>>()?, None).ok()
}
