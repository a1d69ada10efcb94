use super::*;
use crate::documents::proposed;
use crate::mesh_file::{MeshFile, Origin};

const MESH: &str = "apiVersion: weir.dev/v1alpha1
kind: Mesh
services:
  - {name: web, protocol: http1, versions: [{name: v1, weight: 1, addresses: [\"127.0.0.1:9\"]}, {name: v2, weight: 0, addresses: [\"127.0.0.1:10\"]}]}
routes:
  - apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {name: front}
    spec:
      parentRefs: [{name: gateway}]
      rules:
        - matches: [{path: {type: PathPrefix, value: /a}}]
          backendRefs: [{name: web}]
        - matches: [{path: {type: PathPrefix, value: /b}}]
          backendRefs: [{name: web-v1}]
        - matches: [{path: {type: PathPrefix, value: /c}, headers: [{name: x-c, value: \"1\"}]}]
          backendRefs: [{name: web-v2}]
";

fn compiled(text: &str) -> Compiled {
    let origin = Origin { name: "mesh.yaml", directory: std::path::Path::new("."), public: true };
    let mesh = MeshFile::parse(text, origin).unwrap();
    proposed::compile(proposed::of_file(&mesh)).unwrap()
}

fn line(side: &str, path: &str) -> Recorded {
    let peer = "spiffe://weir.local/ns/default/sa/web";
    let line = format!(
        r#"{{"side":"{side}","method":"GET","path":"{path}","authority":"web","service":"web","peer":"{peer}","status":200}}"#
    );
    Recorded::read(line.as_bytes()).unwrap()
}

#[test]
fn what_changes_is_grouped_and_the_rest_is_counted() {
    let to = MESH
        .replace("web-v1", "web-v2")
        .replace("weight: 1,", "weight: 3,")
        .replace("weight: 0,", "weight: 1,");
    let mut comparison = Comparison::new(compiled(MESH), compiled(&to));
    for path in ["/a/1", "/a/2", "/b", "/c", "/none"] {
        comparison.add(line("gateway", path));
    }
    comparison.add(line("outbound", "/a"));
    comparison.add(line("inbound", "/a"));
    comparison.bad(8, "is none".to_owned());
    let result = comparison.finish();
    let counts = (result.requests, result.changed, result.uncertain, result.inbound, result.bad);
    assert_eq!(counts, (6, 4, 1, 1, 1));
    let text = result.to_string();
    for wanted in [
        "2 requests, such as GET http://web/a/1 from gateway",
        "from front/0 to web (v1=1 v2=0)\n  to   front/0 to web (v1=3 v2=1)",
        "from front/1 to web-v1\n  to   front/1 to web-v2",
        "from web to web (v1=1 v2=0)\n  to   web to web (v1=3 v2=1)",
        "4 of 6 requests would be treated differently",
        "1 are uncertain",
        "line 8: is none",
    ] {
        assert!(text.contains(wanted), "{wanted}\nin\n{text}");
    }
}

#[test]
fn a_filter_alone_is_a_difference() {
    let timeout = MESH.replace(
        "backendRefs: [{name: web-v1}]",
        "backendRefs: [{name: web-v1}]\n          timeouts: {request: 1s}",
    );
    let mut comparison = Comparison::new(compiled(MESH), compiled(&timeout));
    comparison.add(line("gateway", "/b"));
    comparison.add(line("gateway", "/a"));
    let result = comparison.finish();
    assert_eq!((result.changed, result.changes.len()), (1, 1));
    assert!(result.changes[0].only_rule);
}

#[test]
fn memory_is_bounded() {
    let mut comparison = Comparison::new(compiled(MESH), compiled(MESH));
    for i in 0..REMEMBERED + 10 {
        comparison.add(line("gateway", &format!("/a/{i}")));
    }
    assert!(comparison.known.len() <= REMEMBERED);
    assert_eq!(comparison.finish().changed, 0);
}

#[test]
fn lines_that_are_no_requests_are_refused() {
    for (line, wanted) in [
        ("{", "EOF"),
        (r#"{"side":"here","method":"GET","path":"/"}"#, "side \"here\""),
        (r#"{"side":"gateway","method":"G T","path":"/"}"#, "no method"),
        (r#"{"side":"gateway","method":"GET","path":"no path"}"#, "no URL"),
    ] {
        let error = Recorded::read(line.as_bytes()).unwrap_err();
        assert!(error.contains(wanted), "{line}: {error}");
    }
    // Logs of an older router have no host.
    let old = Recorded::read(br#"{"side":"outbound","method":"GET","path":"/x","service":"web"}"#);
    let old = old.unwrap();
    assert!(old.without_host);
    assert_eq!(old.request.uri().host(), Some("web"));
}
