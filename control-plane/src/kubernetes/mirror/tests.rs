use serde_json::json;

use super::*;

fn object(name: &str, uid: &str, version: u64, weight: u32) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TrafficSplit",
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid,
            "resourceVersion": version.to_string(),
        },
        "spec": { "weight": weight },
    }))
    .unwrap()
}

fn weight(mirror: &Mirror, name: &str) -> Option<u64> {
    mirror.read(|objects| objects.get(Kind::TrafficSplit, "shop", name)?["spec"]["weight"].as_u64())
}

#[test]
fn a_watch_that_is_behind_does_not_undo_what_was_written() {
    let mirror = Mirror::default();
    mirror.wrote(Kind::TrafficSplit, object("a", "1", 20, 90));
    mirror.apply(Kind::TrafficSplit, object("a", "1", 10, 50));
    assert_eq!(weight(&mirror, "a"), Some(90), "an older event");
    mirror.replace(Kind::TrafficSplit, "", vec![]);
    assert_eq!(weight(&mirror, "a"), Some(90), "an older list");
    mirror.apply(Kind::TrafficSplit, object("a", "1", 30, 10));
    assert_eq!(weight(&mirror, "a"), Some(10));
    mirror.apply(Kind::TrafficSplit, object("a", "2", 5, 1));
    assert_eq!(weight(&mirror, "a"), Some(1), "another object of the same name");
}

#[test]
fn what_was_deleted_does_not_come_back_by_old_events() {
    let mirror = Mirror::default();
    mirror.apply(Kind::TrafficSplit, object("a", "1", 10, 90));
    mirror.deleted(Kind::TrafficSplit, "shop", "a");
    mirror.apply(Kind::TrafficSplit, object("a", "1", 11, 90));
    assert_eq!(weight(&mirror, "a"), None);
    mirror.apply(Kind::TrafficSplit, object("a", "2", 12, 7));
    mirror.delete(Kind::TrafficSplit, &object("a", "1", 13, 90));
    assert_eq!(weight(&mirror, "a"), Some(7), "made anew before the old one's end was heard of");
}

#[test]
fn what_changes_nothing_wakes_nobody() {
    let mirror = Mirror::default();
    mirror.apply(Kind::TrafficSplit, object("a", "1", 10, 90));
    let mut changes = mirror.watch();
    changes.mark_unchanged();
    mirror.apply(Kind::TrafficSplit, object("a", "1", 11, 90));
    assert!(!changes.has_changed().unwrap(), "only its version is new");
    mirror.apply(Kind::TrafficSplit, object("a", "1", 12, 91));
    assert!(changes.has_changed().unwrap());
}

#[test]
fn secrets_of_some_namespaces_are_known_when_all_of_these_are() {
    let mirror = Mirror::default();
    mirror.limit(Kind::Secret, &["a".to_owned(), "b".to_owned()]);
    mirror.replace(Kind::Secret, "a", vec![]);
    assert!(mirror.missing().contains(&Kind::Secret));
    mirror.replace(Kind::Secret, "b", vec![]);
    assert!(!mirror.missing().contains(&Kind::Secret));
}

#[test]
fn the_newest_manager_is_known_and_status_is_nobodys_wish() {
    let mut object = object("a", "1", 10, 90);
    object.metadata.managed_fields = serde_json::from_value(json!([
        { "manager": "weir", "operation": "Apply", "time": "2026-11-21T20:00:00Z" },
        { "manager": "gitops", "operation": "Apply", "time": "2026-11-21T20:00:00Z" },
        { "manager": "old", "operation": "Update", "time": "2026-11-21T19:00:00Z" },
        { "manager": "weir-status", "operation": "Update", "subresource": "status",
          "time": "2026-11-21T21:00:00Z" },
    ]))
    .unwrap();
    let mirror = Mirror::default();
    mirror.apply(Kind::TrafficSplit, object);
    assert_eq!(mirror.manager(Kind::TrafficSplit, "shop", "a"), "gitops");
    let held = mirror.read(|objects| objects.get(Kind::TrafficSplit, "shop", "a").cloned());
    assert!(held.unwrap()["metadata"].get("managedFields").is_none(), "nobody else reads them");
}
