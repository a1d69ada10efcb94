//! `weir apply`, `weir diff`, `weir delete` and `weir get -o yaml`.

use serde_json::json;

use crate::{file, mesh, names, revision, sidecar, turn, weir, weir_with_input, world};

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME}
spec:
  parentRefs: [{name: gateway}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /NAME}, headers: [{name: x-canary, value: \"yes\"}]}]
      backendRefs: [{name: web-v2}]
    - matches: [{path: {type: PathPrefix, value: /NAME}}]
      backendRefs: [{name: web-v1}]
";

const POLICY: &str = "apiVersion: weir.dev/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: NAME}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
";

#[tokio::test]
async fn documents_of_many_files_are_one_change_that_serves() {
    let _turn = turn().await;
    let before = revision();
    let path = file(
        "many.yaml",
        &format!("{}---\n{}", ROUTE.replace("NAME", "one"), POLICY.replace("NAME", "one")),
    );
    let args = [
        "apply",
        "-f",
        path.to_str().unwrap(),
        "-f",
        "-",
        "--wait",
        "--reason",
        "many",
        "-o",
        "json",
    ];
    let change = weir_with_input(&args, &ROUTE.replace("NAME", "two")).json();
    assert_eq!(change["revision"].as_u64(), Some(before + 1), "{change}");
    assert_eq!(change["changes"].as_array().unwrap().len(), 3, "{change}");
    for (canary, version) in [("yes", "v2"), ("no", "v1")] {
        let reply = mesh().http().get("/two/x").header("x-canary", canary).ok().await;
        assert_eq!(reply["version"], version);
    }
    let table = weir(&["get", "policies"]).ok();
    let row = table.lines().find(|line| line.contains("one")).unwrap_or_else(|| panic!("{table}"));
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(words, ["BackendTrafficPolicy", "one", "Service/web"]);

    let gone = weir_with_input(&["delete", "-f", "-"], &ROUTE.replace("NAME", "two")).ok();
    assert!(gone.starts_with("HTTPRoute two: deleted, revision "), "{gone}");
    weir(&["delete", "-f", path.to_str().unwrap()]).ok();
    assert_eq!(names(&weir(&["get", "routes", "-o", "json"]).json()), ["front"]);
    assert_eq!(names(&weir(&["get", "policies", "-o", "json"]).json()), [""; 0]);
    let again = weir(&["delete", "httproute", "one"]).failed();
    assert!(again.contains("no HTTPRoute \"one\""), "{again}");
    weir(&["delete", "httproute", "one", "--ignore-not-found"]).ok();
}

#[tokio::test]
async fn every_mistake_is_told_by_its_place_and_nothing_is_applied() {
    let _turn = turn().await;
    let before = revision();
    let wrong = ROUTE.replace("NAME", "wrong").replace("web-v2", "wbe");
    let policy = POLICY
        .replace("NAME", "wrong")
        .replace("kind: Service, name: web", "kind: Servise, name: web");
    let path = file("wrong.yaml", &format!("{wrong}---\n{policy}"));
    let text = path.to_str().unwrap();
    let error = weir(&["apply", "-f", text]).failed();
    assert!(
        error.contains(&format!("{text}:8:28: spec.rules[0].backendRefs[0].name: no service")),
        "{error}"
    );
    assert!(error.contains(&format!("{text}:16:34: spec.targetRefs[0].kind: ")), "{error}");

    // What only the control plane can tell is told by its place as well.
    let dangling = POLICY.replace("NAME", "wrong").replace("name: web}", "name: nobody}");
    let path =
        file("dangling.yaml", &format!("---\n{}---\n{dangling}", ROUTE.replace("NAME", "right")));
    let text = path.to_str().unwrap();
    let error = weir(&["apply", "-f", text]).failed();
    assert!(error.contains(&format!("{text}:17:49: spec.targetRefs[0].name: ")), "{error}");
    let error = weir(&["apply", "-f", text, "--prune"]).failed();
    assert!(error.contains("--prune") && error.contains("kind: Mesh"), "{error}");
    assert_eq!(revision(), before);
}

#[tokio::test]
async fn a_dry_run_and_a_diff_change_nothing() {
    let _turn = turn().await;
    let before = revision();
    let path = file("dry.yaml", &ROUTE.replace("NAME", "dry"));
    let path = path.to_str().unwrap();
    let text = weir(&["apply", "-f", path, "--dry-run"]).ok();
    assert!(text.contains("route dry: new, 2 rules"), "{text}");
    let diff = weir(&["diff", "-f", path]);
    assert_eq!(diff.code, Some(1), "{diff:?}");
    assert!(
        diff.stdout.contains("--- mesh/route/dry\n+++ files/route/dry\n@@ -0,0 +1,"),
        "{diff:?}"
    );
    assert!(diff.stdout.contains("\n+kind: HTTPRoute\n"), "{diff:?}");
    assert!(!diff.stdout.contains('\u{1b}'), "colours belong to terminals");
    assert_eq!(
        (revision(), names(&weir(&["get", "routes", "-o", "json"]).json())),
        (before, vec!["front".to_owned()])
    );

    weir(&["apply", "-f", path]).ok();
    let same = weir(&["diff", "-f", path]);
    assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""), "{same:?}");
    let changed = ROUTE.replace("NAME", "dry").replace("web-v1", "web");
    let changed = weir_with_input(&["diff", "-f", "-"], &changed);
    assert_eq!(changed.code, Some(1));
    assert!(
        changed.stdout.contains("-  - name: web-v1\n")
            || changed.stdout.contains("-    - name: web-v1\n"),
        "{}",
        changed.stdout
    );
    let json = weir_with_input(&["diff", "-f", "-", "-o", "json"], &ROUTE.replace("NAME", "more"));
    assert!(json.stdout.contains("\"route/more\""), "{json:?}");
    let wrong = weir_with_input(&["diff", "-f", "-"], "kind: HTTPRoute\n");
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("standard input:1:"), "{wrong:?}");
    weir(&["delete", "route", "dry"]).ok();
}

#[tokio::test]
async fn what_get_prints_can_be_applied_again() {
    let _turn = turn().await;
    let path = file(
        "again.yaml",
        &format!("{}---\n{}", ROUTE.replace("NAME", "again"), POLICY.replace("NAME", "again")),
    );
    weir(&["apply", "-f", path.to_str().unwrap()]).ok();
    let at = revision();
    for what in ["routes", "policies"] {
        for format in ["yaml", "json"] {
            let all = weir(&["get", what, "-o", format]).ok();
            let one = weir(&["get", what, "again", "-o", format]).ok();
            for text in [all, one] {
                let change = weir_with_input(&["apply", "-f", "-", "-o", "json"], &text).json();
                assert_eq!(change["unchanged"], true, "{text}: {change}");
            }
        }
    }
    assert_eq!(revision(), at);
    let one = weir(&["get", "routes", "again", "-o", "json"]).json();
    assert_eq!((&one["kind"], &one["metadata"]["name"]), (&json!("HTTPRoute"), &json!("again")));
    let none = weir(&["get", "routes", "agian"]).failed();
    assert!(none.contains("there are: again, front"), "{none}");
    weir(&["delete", "-f", path.to_str().unwrap()]).ok();
}

#[tokio::test]
async fn a_mesh_file_beside_documents_prunes_what_neither_names() {
    let _turn = turn().await;
    let old = file("old.yaml", &ROUTE.replace("NAME", "old"));
    weir(&["apply", "-f", old.to_str().unwrap()]).ok();
    let new = file("new.yaml", &ROUTE.replace("NAME", "new"));
    let whole = world().directory.path().join("mesh.yaml");
    let files = ["-f", whole.to_str().unwrap(), "-f", new.to_str().unwrap(), "--prune"];
    let diff = weir(&[&["diff"], &files[..]].concat());
    assert_eq!(diff.code, Some(1));
    assert!(
        diff.stdout.contains("-  name: old\n") && diff.stdout.contains("+  name: new\n"),
        "{diff:?}"
    );
    weir(&[&["apply", "--wait"], &files[..]].concat()).ok();
    assert_eq!(names(&weir(&["get", "routes", "-o", "json"]).json()), ["front", "new"]);
    weir(&["apply", "-f", whole.to_str().unwrap(), "--prune", "--wait"]).ok();
    assert_eq!(names(&weir(&["get", "routes", "-o", "json"]).json()), ["front"]);
    assert_eq!(sidecar("web").get("/").send().await.status, 200);
}

const TCP: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: bytes}
spec:
  parentRefs: [{group: \"\", kind: Service, name: db}]
  rules:
    - backendRefs: [{name: db-v1}]
";

#[tokio::test]
async fn routes_of_connections_are_documents_too() {
    let _turn = turn().await;
    let path = file("bytes.yaml", TCP);
    let path = path.to_str().unwrap();
    let diff = weir(&["diff", "-f", path]);
    assert_eq!(diff.code, Some(1), "{diff:?}");
    assert!(diff.stdout.contains("+kind: TCPRoute\n"), "{diff:?}");
    weir(&["apply", "-f", path, "--wait"]).ok();
    assert_eq!(weir(&["diff", "-f", path]).code, Some(0));
    assert_eq!(names(&weir(&["get", "routes", "-o", "json"]).json()), ["front", "bytes"]);
    let yaml = weir(&["get", "routes", "bytes", "-o", "yaml"]).ok();
    let again = weir_with_input(&["apply", "-f", "-", "-o", "json"], &yaml).json();
    assert_eq!(again["unchanged"], true, "{yaml}: {again}");
    // What only the control plane knows is told by its place.
    let wrong = TCP.replace("name: db-v1", "name: web-v1");
    let error = weir_with_input(&["apply", "-f", "-"], &wrong).failed();
    assert!(
        error.contains("standard input:7:28: spec.rules[0].backendRefs[0].name: the protocol"),
        "{error}"
    );
    weir(&["delete", "tcproute", "bytes"]).ok();
    assert_eq!(names(&weir(&["get", "routes", "-o", "json"]).json()), ["front"]);
}

#[tokio::test]
async fn what_is_hardly_meant_is_warned_of_by_its_place() {
    let _turn = turn().await;
    let shadowed = ROUTE
        .replace("NAME", "twice")
        .replace("PathPrefix, value: /twice}}]", "PathPrefix, value: /other}}]");
    let first = ROUTE.replace("NAME", "first").replace("/first", "/other");
    let path = file("shadowed.yaml", &format!("{first}---\n{shadowed}"));
    let text = path.to_str().unwrap();
    for args in [&["apply", "-f", text, "--dry-run"][..], &["apply", "-f", text]] {
        let output = weir(args);
        assert_eq!(output.code, Some(0), "{output:?}");
        let warning = format!(
            "warning: UnreachableRule: {text}:20:7: spec.rules[1]: takes nothing: first.rules[1]"
        );
        assert!(output.stderr.contains(&warning), "{output:?}");
    }
    // Old news is none.
    let other = ROUTE.replace("NAME", "unrelated");
    let output = weir_with_input(&["apply", "-f", "-"], &other);
    assert_eq!((output.code, output.stderr.contains("warning")), (Some(0), false), "{output:?}");
    weir(&["delete", "route", "unrelated"]).ok();
    weir(&["delete", "-f", text]).ok();
}
