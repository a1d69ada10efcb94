use std::fs;
use std::path::PathBuf;

use super::*;

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: gateway}]
  rules:
    - backendRefs: [{name: web-v2}]
";

const POLICY: &str = "apiVersion: weir.dev/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: web}
spec:
  targetRefs: [{kind: Service, name: web}]
";

fn services() -> Vec<(ServiceName, Vec<VersionName>)> {
    vec![("web".parse().unwrap(), vec!["v1".parse().unwrap(), "v2".parse().unwrap()])]
}

/// Files of these names and texts, read as one.
fn read(files: &[(&str, &str)]) -> Result<Documents, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let loaded = Loaded::read(&Files::of(vec![dir.path().to_owned()]));
    let read = loaded.and_then(|loaded| loaded.resolve(services()));
    read.map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

#[test]
fn a_directory_of_yaml_json_and_lists_is_read() {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [{
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute", "metadata": {"name": "rpc"},
        "spec": {"parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": [{"name": "web"}]}]},
    }]});
    let documents = read(&[
        ("b.yaml", &format!("---\n{ROUTE}---\n{POLICY}")),
        ("a.json", &list.to_string()),
        ("notes.txt", "neither: read"),
    ]);
    let documents = documents.unwrap();
    let found: Vec<_> = documents.objects.iter().map(|(_, o)| (o.kind(), o.name())).collect();
    let wanted = [("GRPCRoute", "rpc"), ("HTTPRoute", "web"), ("BackendTrafficPolicy", "web")];
    assert_eq!(found, wanted);
}

#[test]
fn every_mistake_of_every_document_has_its_place() {
    let text = [
        &ROUTE.replace("name: web-v2", "name: web-v9"),
        "a: [\n",
        &POLICY.replace("kind: Service", "kind: Servise"),
        &ROUTE
            .replace("metadata: {name: web}", "metadata: {name: other}")
            .replace("rules:", "ruls:"),
        "metadata: {}\n",
        "- 1\n",
    ];
    let error = read(&[("a.yaml", &text.join("---\n")), ("b.yaml", "kind: List\n")]).err().unwrap();
    for wanted in [
        "a.yaml:7:28: spec.rules[0].backendRefs[0].name: service web has no version \"v9\"",
        "a.yaml:9:",
        "a.yaml:15:23: spec.targetRefs[0].kind: ",
        "a.yaml:22:",
        "spec.ruls: ",
        "kind: is missing; use one of: Mesh, List, HTTPRoute",
        "is a list; a document with apiVersion and kind belongs here",
        "b.yaml:1:1: apiVersion: of a List is v1",
    ] {
        assert!(error.contains(wanted), "{wanted}\nin\n{error}");
    }
}

#[test]
fn what_is_there_twice_is_refused() {
    let error = read(&[("a.yaml", ROUTE), ("b.yaml", &format!("\n{ROUTE}"))]).err().unwrap();
    assert_eq!(error, "b.yaml:4:18: metadata.name: web is here twice; first in a.yaml:3:18");
}

#[test]
fn a_mesh_file_names_services_for_the_documents_beside_it() {
    let mesh = "apiVersion: weir.dev/v1alpha1\nkind: Mesh\nservices:\n  - name: shop\n    protocol: \
                http1\n    versions: [{name: v1, weight: 1, addresses: [\"127.0.0.1:9\"]}]\n";
    let route = ROUTE.replace("web-v2", "shop-v1");
    let documents = read(&[("mesh.yaml", mesh), ("route.yaml", &route)]).unwrap();
    let request = Request::new(&documents);
    let names: Vec<_> = request.message.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((names, request.message.routes.len()), (vec!["shop"], 1));
    let error = read(&[("a.yaml", mesh), ("b.yaml", mesh)]).err().unwrap();
    assert!(error.contains("b.yaml:2:7: kind: there is a Mesh already, in "), "{error}");
}

#[test]
fn what_the_control_plane_refuses_is_shown_where_it_was_written() {
    let documents = read(&[("a.yaml", &format!("{ROUTE}---\n{POLICY}"))]).unwrap();
    let request = Request::new(&documents);
    let shown = |field: &str| {
        let line = request.line(field, "no");
        line.rsplit_once('/').map_or(line.clone(), |(_, line)| line.to_owned())
    };
    let backend = "a.yaml:7:28: spec.rules[0].backendRefs[0].name: no";
    assert_eq!(shown("routes[0].rules[0].backendRefs[0].service"), backend);
    assert_eq!(shown("routes[0].name"), "a.yaml:3:18: metadata.name: no");
    assert_eq!(
        shown("policies[0].spec.targetRefs[0].name"),
        "a.yaml:13:38: spec.targetRefs[0].name: no"
    );
    assert_eq!(shown("routes.old.rules[0]"), "routes.old.rules[0]: no");
}

#[test]
fn documents_survive_as_yaml_and_json() {
    let text = ROUTE.replace("web-v2}]", "web}]\n      matches: [{headers: [{name: x-a, value: \"yes\"}, {name: x-b, value: \"1e3\"}, {name: x-c, value: \"a: b # c\"}]}]");
    let documents = read(&[("a.yaml", &format!("{text}---\n{POLICY}"))]).unwrap();
    for (_, object) in &documents.objects {
        let document = object.to_document();
        let yaml = crate::output::yaml(&document).unwrap();
        for text in [yaml, document.to_string()] {
            let again = read(&[("a.yaml", &text)]).unwrap();
            assert_eq!(&again.objects[0].1, object, "{text}");
        }
    }
}

/// Every example of the documentation is read by the parser it is about.
#[test]
fn the_documentation_is_true() {
    let examples = doc_examples();
    for (place, document) in &examples {
        assert_eq!(check_example(document), None, "{place}: {document}");
    }
    assert!(examples.len() >= 3, "only {} examples were found", examples.len());
}

/// The documents in the documentation, with their places.
pub(super) fn doc_examples() -> Vec<(String, Json)> {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/src");
    let mut examples = Vec::new();
    for entry in fs::read_dir(docs).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // What is only for a cluster is tried by its API server: tests/kubernetes.
        if name == "gateway-api.md" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        for (line, block) in yaml_blocks(&text) {
            let documents = example_documents(&block).into_iter();
            examples.extend(documents.map(|document| (format!("{name}:{line}"), document)));
        }
    }
    examples
}

/// Blocks of YAML that hold documents, with their lines.
fn yaml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (line, content) in (1..).zip(text.lines()) {
        match (&mut open, content.trim_end()) {
            (None, "```yaml") => open = Some((line, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, block)), content) => block.push_str(&format!("{content}\n")),
            (None, _) => {}
        }
    }
    blocks.retain(|(_, block)| block.contains("apiVersion"));
    blocks
}

/// Documents, elements of lists of documents, and those of a mesh file's lists.
fn example_documents(block: &str) -> Vec<Json> {
    let mut all = Vec::new();
    for node in stream::documents(block) {
        let json = node.unwrap_or_else(|error| panic!("{error:?}: {block}")).to_json();
        match &json {
            Json::Array(items) => all.extend(items.clone()),
            Json::Object(map) if !map.contains_key("kind") => {
                let lists = ["routes", "policies"].iter().filter_map(|key| map.get(*key));
                all.extend(lists.flat_map(|list| list.as_array().cloned().unwrap_or_default()));
            }
            _ => all.push(json),
        }
    }
    all
}

/// What is wrong with a document, if all services that it names are there.
fn check_example(document: &Json) -> Option<String> {
    if document["kind"] == "Mesh" {
        // Whole meshes name programs and files that are the reader's.
        return None;
    }
    let mut names = Vec::new();
    collect_names(document, &mut names);
    let mut services: std::collections::BTreeMap<ServiceName, Vec<VersionName>> =
        std::collections::BTreeMap::new();
    for name in &names {
        let (service, version) = match name.rsplit_once('-') {
            Some((service, version)) if version.starts_with('v') => (service, Some(version)),
            _ => (name.as_str(), None),
        };
        let Ok(service) = service.parse::<ServiceName>() else { continue };
        let versions = services.entry(service).or_default();
        versions.extend(version.and_then(|version| version.parse::<VersionName>().ok()));
    }
    let read = Object::read(document, &services.into_iter().collect());
    read.err().map(|invalid| invalid.to_string())
}

fn collect_names(value: &Json, names: &mut Vec<String>) {
    match value {
        Json::Object(map) => {
            names.extend(map.get("name").and_then(Json::as_str).map(str::to_owned));
            map.values().for_each(|value| collect_names(value, names));
        }
        Json::Array(items) => items.iter().for_each(|value| collect_names(value, names)),
        _ => {}
    }
}
