use proptest::prelude::*;
use serde_json::json;
use weir_mesh::mesh_document;

use super::*;
use crate::mesh_file::{MeshFile, Origin};
use crate::output::yaml;

const FILE: &str = r#"# Ours.
apiVersion: weir.dev/v1alpha1
kind: Mesh
services:
  - name: web   # the front
    protocol: http1
    versions:
      - weight: &most 90   # nearly all
        name: v1
        command: [./web, --port, $PORT]
      - {name: v2, weight: 10, command: ["./web"]}
      - {name: "v3", command: ["./web"]}
  - name: shop
    protocol: http1
    versions:
      - name: v1
        weight: *most
        command: ["./shop"]
      - name: v2   # new
        command: ["./shop"]
"#;

fn mesh(services: &[(&str, &[(&str, i64)])]) -> Json {
    let versions = |versions: &[(&str, i64)]| -> Json {
        versions.iter().map(|(name, weight)| json!({"name": name, "weight": weight})).collect()
    };
    let service = |(name, all): &(&str, &[(&str, i64)])| json!({"name": name, "protocol": "http1", "versions": versions(all)});
    json!({"kind": "Mesh", "services": services.iter().map(service).collect::<Vec<_>>()})
}

#[test]
fn only_weights_change() {
    let wanted =
        mesh(&[("web", &[("v1", 50), ("v2", 45), ("v3", 5)]), ("shop", &[("v1", 20), ("v2", 80)])]);
    let edited = edit(FILE, std::slice::from_ref(&wanted), true).unwrap();
    assert_eq!(edited.left, Vec::<String>::new());
    let want = FILE
        .replace("&most 90", "&most 50")
        .replace("weight: 10,", "weight: 45,")
        .replace("name: \"v3\",", "name: \"v3\", weight: 5,")
        .replace("weight: *most", "weight: 20")
        .replace("v2   # new\n", "v2   # new\n        weight: 80\n");
    assert_eq!(edited.text, want);
    // What is as it should be is not touched.
    assert_eq!(edit(&want, &[wanted], true).unwrap().text, want);
}

#[test]
fn what_others_share_is_left_and_told() {
    // The anchor's weight alone would change: shop says it by the alias.
    let wanted =
        mesh(&[("web", &[("v1", 50), ("v2", 10), ("v3", 0)]), ("shop", &[("v1", 90), ("v2", 0)])]);
    let edited = edit(FILE, &[wanted], true).unwrap();
    assert_eq!(edited.text, FILE);
    assert_eq!(edited.left.len(), 1, "{:?}", edited.left);
    assert!(edited.left[0].starts_with("service web: version \"v1\" has weight 50, not 90"));
}

#[test]
fn what_is_no_weight_is_told() {
    let mut wanted = mesh(&[("web", &[("v1", 90), ("v4", 1)]), ("new", &[("v1", 1)])]);
    wanted["services"][0]["managedBy"] = json!("flux");
    let edited = edit(FILE, &[wanted], true).unwrap();
    assert_eq!(edited.text, FILE);
    assert_eq!(
        edited.left,
        [
            "service web: managedBy is \"flux\" in the mesh",
            "service web: version \"v2\" is in the file alone",
            "service web: version \"v3\" is in the file alone",
            "service web: version \"v4\" is not in the file",
            "service shop is in the file alone",
            "service new is not in the file",
        ]
    );
}

#[test]
fn traffic_splits_of_a_stream_and_windows_lines() {
    let text = "---\r\nkind: Other\r\n--- # two\r\nkind: TrafficSplit\r\nmetadata: {name: web, namespace: shop}\r\nspec:\r\n  versions:\r\n  - name: v1\r\n    weight: 1 # one\r\n  - name: v2\r\n    weight: 0\r\n";
    let wanted = json!({
        "kind": "TrafficSplit",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"versions": [{"name": "v1", "weight": 3}, {"name": "v2", "weight": 7}]},
    });
    let edited = edit(text, &[wanted], true).unwrap();
    assert_eq!(edited.left, Vec::<String>::new());
    assert_eq!(
        edited.text,
        text.replace("weight: 1", "weight: 3").replace("weight: 0", "weight: 7")
    );
}

#[test]
fn the_example_mesh_is_written_as_it_is() {
    let mesh = MeshFile::example().unwrap();
    let services: Vec<_> = mesh.services.iter().map(|spec| &spec.service).collect();
    let document = mesh_document::to_document(services.iter().copied(), Some(&mesh.options));
    let text = yaml(&document).unwrap();
    let origin = Origin { name: "x", directory: std::path::Path::new("."), public: true };
    let again = MeshFile::parse(&text, origin).unwrap();
    assert!(again.services.iter().map(|spec| &spec.service).eq(services), "{text}");
    assert_eq!(again.options, mesh.options);
}

proptest! {
    /// Whatever a file looks like, edited it says what was asked for, or tells that it does
    /// not; and back again, it is the same text.
    #[test]
    fn edits_are_exact(
        flow: bool,
        weights in proptest::collection::vec((0i64..=1_000_000, 0i64..=1_000_000, any::<bool>()), 1..5),
    ) {
        let mut text = "kind: Mesh\nservices:\n- name: a # ü\n  protocol: http1\n  versions:\n".to_owned();
        for (i, (weight, _, quoted)) in weights.iter().enumerate() {
            let name = if *quoted { format!("\"v{i}\"") } else { format!("v{i}") };
            text += &match flow {
                true => format!("  - {{ name: {name}, weight: {weight} }} # {weight}\n"),
                false => format!("    # {weight}\n  - name: {name}\n    weight: {weight} #\n"),
            };
        }
        let names: Vec<_> = (0..weights.len()).map(|i| format!("v{i}")).collect();
        let side = |second: bool| -> Vec<(&str, i64)> {
            let weights = weights.iter().map(|(a, b, _)| if second { *b } else { *a });
            names.iter().map(String::as_str).zip(weights).collect()
        };
        let (old, new) = (side(false), side(true));
        let edited = edit(&text, &[mesh(&[("a", &new)])], true).unwrap();
        prop_assert_eq!(&edited.left, &Vec::<String>::new());
        let read = Node::parse(&edited.text).unwrap().to_json();
        for (i, (_, weight)) in new.iter().enumerate() {
            prop_assert_eq!(&read["services"][0]["versions"][i]["weight"], &json!(weight));
        }
        prop_assert_eq!(edit(&edited.text, &[mesh(&[("a", &old)])], true).unwrap().text, text);
    }
}
