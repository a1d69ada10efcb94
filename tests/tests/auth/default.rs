//! A mesh that denies what nobody allows.

use weir_tests::Http;

const FILE: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
authorization: {default: Deny, explain: false}
path: {escapedSlashes: Keep}
services:
  - name: web
    protocol: http1
    versions: [{name: v1, command: ["{app}", "--ignored", "--exact", "app"]}]
  - name: caller
    protocol: http1
    versions: [{name: v1, command: ["{app}", "--ignored", "--exact", "app"]}]
  - name: plain
    protocol: http1
    versions: [{name: v1, addresses: ["127.0.0.1:1"]}]
routes:
  - apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {name: all}
    spec:
      parentRefs: [{name: gateway}]
      rules: [{backendRefs: [{name: web, port: 80}]}]
policies:
  - apiVersion: weir.dev/v1alpha1
    kind: AuthorizationPolicy
    metadata: {name: entry}
    spec:
      targetRefs: [{kind: Gateway, name: gateway}]
      action: Allow
      rules: [{to: {paths: [{type: PathPrefix, value: /entry}]}}]
  - apiVersion: weir.dev/v1alpha1
    kind: AuthorizationPolicy
    metadata: {name: web}
    spec:
      targetRefs: [{kind: Service, name: web}]
      action: Allow
      rules: [{from: {services: [gateway]}}]
"#;

#[tokio::test]
async fn what_nobody_allows_is_denied_and_nobody_is_told_why() {
    let app = std::env::current_exe().unwrap();
    let mesh = crate::start(&FILE.replace("{app}", app.to_str().unwrap()));
    let http = mesh.http();
    assert_eq!(http.get("/entry/a").send().await.status, 200);
    // An escaped slash is a byte of its segment.
    let kept = http.get("/entry/a%2fb").ok().await;
    assert_eq!(kept["path"], "/entry/a%2Fb");
    assert_eq!(http.get("/entry%2fa").send().await.status, 403);
    let reply = http.get("/other").send().await;
    assert_eq!((reply.status.as_u16(), &reply.json()["message"]), (403, &"access denied".into()));
    // From a service that no policy names; and to one that none speaks of, which
    // has no router that could ask: its caller's asks.
    let outbound = mesh.process("caller-v1-1-router").outbound.unwrap();
    for service in ["web", "caller", "plain"] {
        let caller = Http::new(&format!("http://{outbound}")).with_header("host", service);
        let reply = caller.get("/entry").send().await;
        assert_eq!(reply.status, 403, "{service}: {}", reply.text());
    }
}
