//! What a pod belongs to: the workload that made it, and the version that it runs.

use serde_json::Value;

/// Labels that say the version, the first one wins.
const VERSION_LABELS: [&str; 3] = ["weir.dev/version", "version", "app.kubernetes.io/version"];

/// Longest DNS label (RFC 1035).
const LABEL_BYTES: usize = 63;

/// The name of the workload that made a pod, as a DNS label.
pub fn name(pod: &Value) -> String {
    let metadata = &pod["metadata"];
    let owners = metadata["ownerReferences"].as_array();
    let owner = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = match owner {
        Some(owner) => {
            let name = text(&owner["name"]);
            match owner["kind"].as_str() {
                // Of a Deployment's ReplicaSet: the Deployment's name.
                Some("ReplicaSet") => without_hash(&name, metadata),
                // Of a CronJob's Job: the CronJob's. Its Jobs end with minutes since 1970.
                Some("Job") => without_number(&name),
                _ => name,
            }
        }
        None => match text(&metadata["name"]) {
            name if name.is_empty() => text(&metadata["generateName"]),
            name => name,
        },
    };
    label(&name).unwrap_or_else(|| "unknown".to_owned())
}

fn without_hash(name: &str, metadata: &Value) -> String {
    let hash = metadata["labels"]["pod-template-hash"].as_str().unwrap_or_default();
    let cut = name.strip_suffix(hash).and_then(|name| name.strip_suffix('-'));
    cut.filter(|_| !hash.is_empty()).unwrap_or(name).to_owned()
}

fn without_number(name: &str) -> String {
    match name.rsplit_once('-') {
        Some((name, number)) if number.len() >= 8 && number.bytes().all(|b| b.is_ascii_digit()) => {
            name.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// The version that a pod runs, as a DNS label.
pub fn version(pod: &Value) -> String {
    let labels = &pod["metadata"]["labels"];
    let mut named = VERSION_LABELS.iter().filter_map(|label| labels[*label].as_str());
    named.find_map(label).unwrap_or_else(|| "default".to_owned())
}

/// Text as a DNS label: lower-case letters, digits and `-` within, at most 63. None
/// when nothing is left.
pub fn label(text: &str) -> Option<String> {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let made: String = text.chars().map(letter).collect();
    let made = made.trim_matches('-');
    let made = made.get(..LABEL_BYTES).unwrap_or(made).trim_end_matches('-');
    (!made.is_empty()).then(|| made.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owned(kind: &str, name: &str) -> Value {
        json!({"metadata": {
            "generateName": "x-",
            "labels": {"pod-template-hash": "5d4f8c7b9"},
            "ownerReferences": [
                {"kind": "Other", "name": "other"},
                {"kind": kind, "name": name, "controller": true},
            ],
        }})
    }

    #[test]
    fn pods_have_the_name_of_what_made_them() {
        assert_eq!(name(&owned("ReplicaSet", "products-v1-5d4f8c7b9")), "products-v1");
        assert_eq!(name(&owned("ReplicaSet", "by-hand")), "by-hand");
        assert_eq!(name(&owned("StatefulSet", "db.shop")), "db-shop");
        assert_eq!(name(&owned("Job", "report-29387520")), "report");
        assert_eq!(name(&owned("Job", "report-7")), "report-7");
        assert_eq!(name(&json!({"metadata": {"name": "alone"}})), "alone");
        assert_eq!(name(&json!({"metadata": {"generateName": "many-"}})), "many");
        assert_eq!(name(&json!({})), "unknown");
    }

    #[test]
    fn versions_are_labels() {
        let of = |labels: Value| version(&json!({"metadata": {"labels": labels}}));
        assert_eq!(of(json!({"version": "v1", "weir.dev/version": "v2"})), "v2");
        assert_eq!(of(json!({"app.kubernetes.io/version": "1.2.3+Build_7"})), "1-2-3-build-7");
        assert_eq!(of(json!({"version": "...", "app.kubernetes.io/version": "4"})), "4");
        assert_eq!(of(json!({})), "default");
        assert_eq!(of(json!({"version": "a".repeat(63) + "b"})), "a".repeat(63));
    }
}
