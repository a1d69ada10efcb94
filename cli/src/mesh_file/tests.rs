use super::*;

const GOOD: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
services:
  - name: web
    protocol: http1
    versions:
      - name: v1
        weight: 90
        replicas: 2
        command: [sh, -c, "exec server --port $PORT"]
        env: {LEVEL: 3}
      - {name: v2, weight: 10, command: [sh]}
routes: []
"#;

fn parse(text: &str) -> Result<MeshFile, Refused> {
    let origin = Origin { name: "mesh.yaml", directory: Path::new("."), public: true };
    MeshFile::parse(text, origin)
}

/// `GOOD` with one thing changed must be refused with exactly this line.
#[track_caller]
fn refused(from: &str, to: &str, line: &str) {
    assert!(GOOD.contains(from), "{from}");
    let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
    assert_eq!(error.to_string(), format!("mesh.yaml:{line}"));
}

#[test]
fn a_good_file_is_read() {
    let mesh = parse(GOOD).unwrap();
    let web = &mesh.services[0];
    assert_eq!(web.service.split.weight("v2").map(|w| w.get()), Some(10));
    assert_eq!(web.versions[0].replicas, 2);
    assert_eq!(web.versions[0].env, [("LEVEL".to_owned(), "3".to_owned())]);
    assert_eq!(web.versions[1].program, Program::Command(vec!["sh".into()]));
}

#[test]
fn shipped_files_are_good() {
    let example = MeshFile::example().unwrap();
    assert_eq!(example.services.len(), 4);
    assert!(example.options.show_version);
    if find_python() {
        parse(STARTER).unwrap();
    }
}

fn find_python() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("python3").is_file())
}

#[test]
fn each_mistake_has_its_place_and_path() {
    refused("kind: Mesh", "kind: Mess", "2:7: kind: is \"Mess\"; this program reads \"Mesh\"");
    refused("weight: 90", "weight: -5", "8:17: services[0].versions[0].weight: -5 is below 0");
    refused(
        "weight: 90",
        "weigth: 90",
        "8:17: services[0].versions[0].weigth: is not a field here; known are addresses, \
         builtin, command, discovered, env, name, port, replicas, weight, workingDirectory",
    );
    refused(
        "protocol: http1",
        "protocol: udp",
        "5:15: services[0].protocol: \"udp\" is not known; use http1, http2, grpc or tcp",
    );
    refused(
        "name: web",
        "name: Web",
        "4:11: services[0].name: \"Web\" is not a DNS label (RFC 1123): use lower-case letters, \
         digits and '-', beginning and ending with a letter or digit",
    );
    refused(
        "command: [sh]",
        "command: [no-such-program]",
        "12:42: services[0].versions[1].command[0]: \"no-such-program\" is not in $PATH; install \
         it, or give its path",
    );
    refused(
        "replicas: 2",
        "replicas: two",
        "9:19: services[0].versions[0].replicas: is text; a whole number belongs here",
    );
    refused(
        "name: v2, weight: 10",
        "name: 2, weight: 10",
        "12:16: services[0].versions[1].name: is a number; write it in quotes to make it text",
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = GOOD.replace("weight: 90", "weight: -5").replace("http1", "http3");
    let error = parse(&text).unwrap_err();
    let fields: Vec<_> = error.mistakes.iter().map(|m| m.field.as_str()).collect();
    assert_eq!(fields, ["services[0].protocol", "services[0].versions[0].weight"]);
}

#[test]
fn versions_make_a_split() {
    refused(
        "{name: v2, weight: 10",
        "{name: v1, weight: 10",
        "6:5: services[0].versions: names version v1 twice",
    );
    let none = GOOD.replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 0");
    let text = parse(&none).unwrap_err().to_string();
    assert!(text.contains("all weights are 0"), "{text}");
}

#[test]
fn a_fixed_port_holds_one_replica() {
    refused(
        "replicas: 2",
        "replicas: 2\n        port: 9000",
        "10:15: services[0].versions[0].port: is fixed, so there can be one replica; leave it out \
         and listen on $PORT",
    );
}

#[test]
fn a_version_without_a_router_has_addresses() {
    let there = GOOD.replace("command: [sh]", "addresses: [\"10.0.0.7:80\", \"[fd00::7]:80\"]");
    let mesh = parse(&there).unwrap();
    let web = &mesh.services[0];
    assert_eq!(web.versions[1].program, Program::Elsewhere);
    let addresses = web.service.addresses.of(&web.versions[1].name);
    assert_eq!(addresses.len(), 2);
    assert_eq!(crate::up::plan::instances(&mesh).unwrap().len(), 2, "v1's alone");

    let with = |version: &str, line: &str| {
        refused("{name: v2, weight: 10, command: [sh]}", version, line);
    };
    let found = parse(&GOOD.replace("command: [sh]", "discovered: true")).unwrap();
    assert_eq!(found.services[0].versions[1].program, Program::Elsewhere);
    with(
        "{name: v2, discovered: true, command: [sh]}",
        "12:32: services[0].versions[1].discovered: and command exclude each other: where it \
         runs is known from Consul",
    );
    with(
        "{name: v2, discovered: true, replicas: 2}",
        "12:48: services[0].versions[1].replicas: means nothing beside discovered: weir starts \
         nothing",
    );
    with(
        "{name: v2, addresses: [\"10.0.0.7:80\"], command: [sh]}",
        "12:20: services[0].versions[1].addresses: and command exclude each other: weir starts \
         nothing that has addresses",
    );
    with(
        "{name: v2, addresses: [\"10.0.0.7:80\"], builtin: auth}",
        "12:20: services[0].versions[1].addresses: and builtin exclude each other: weir starts \
         nothing that has addresses",
    );
    with(
        "{name: v2, addresses: [\"10.0.0.7:80\", \"db:5432\"]}",
        "12:47: services[0].versions[1].addresses[1]: \"db:5432\" is not `ip:port`, such as \
         10.0.0.7:8080 or [fd00::7]:8080",
    );
    with(
        "{name: v2, addresses: []}",
        "12:20: services[0].versions[1].addresses: is empty; name at least one `ip:port`",
    );
    with(
        "{name: v2, addresses: [\"10.0.0.7:80\"], replicas: 2}",
        "12:58: services[0].versions[1].replicas: means nothing beside addresses: weir starts \
         nothing",
    );
}

#[test]
fn a_join_token_needs_a_private_file_and_is_not_shown() {
    let text = GOOD.replacen(
        "protocol: http1",
        "protocol: http1\n    joinToken: 0123456789abcdef-secret",
        1,
    );
    let error = parse(&text).unwrap_err().to_string();
    assert!(error.contains("mesh.yaml:6:16: services[0].joinToken: is a secret"), "{error}");
    assert!(!error.contains("0123456789abcdef"), "{error}");
    let origin = Origin { name: "mesh.yaml", directory: Path::new("."), public: false };
    let mesh = MeshFile::parse(&text, origin).unwrap();
    assert!(!format!("{mesh:?}").contains("0123456789abcdef"));
}

#[test]
fn sticky_is_by_one_thing() {
    let with = |sticky: &str| {
        parse(&GOOD.replacen(
            "protocol: http1",
            &format!("protocol: http1\n    sticky: {sticky}"),
            1,
        ))
    };
    assert!(with("{user: true}").unwrap().services[0].service.split.sticky.is_some());
    assert!(with("{header: x-user}").is_ok());
    let error = with("{header: x-user, user: true}").unwrap_err().to_string();
    assert!(error.contains("6:5: services[0].sticky: needs exactly one"), "{error}");
}

#[test]
fn routes_name_services_of_the_file() {
    let route = r#"routes:
  - apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {name: web}
    spec:
      parentRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: gateway}]
      rules:
        - backendRefs: [{name: wbe, port: 80}]
"#;
    let error = parse(&GOOD.replace("routes: []\n", route)).unwrap_err().to_string();
    assert!(
        error.contains("mesh.yaml:20:32: routes[0].spec.rules[0].backendRefs[0].name: "),
        "{error}"
    );
    let negative = route.replace("name: wbe, port: 80", "name: web, port: 80, weight: -5");
    let error = parse(&GOOD.replace("routes: []\n", &negative)).unwrap_err().to_string();
    assert!(error.contains("backendRefs[0].weight: -5 is below 0"), "{error}");
    assert!(error.starts_with("mesh.yaml:20:"), "{error}");
}

#[test]
fn what_is_no_yaml_is_placed() {
    let error = parse("services: [\n  a: b: c\n").unwrap_err();
    assert!(error.mistakes[0].place.is_some(), "{error}");
}

const CONNECTIONS: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
gateway:
  listeners:
    - {name: postgres, port: 15432, protocol: TCP}
    - {name: secure, port: 18443, protocol: TLS}
egress:
  default: Deny
  hosts: [api.example.com, {host: "*.example.org", ports: [443, 8443]}, 192.0.2.7]
tcp: {idleTimeout: 10m, detectionTimeout: 50ms, maxConnections: 5}
services:
  - name: db
    protocol: tcp
    versions: [{name: v1, command: [sh]}]
  - name: web
    protocol: http1
    upstreams: [{service: db, port: 15433}]
    versions: [{name: v1, command: [sh]}]
routes:
  - apiVersion: gateway.networking.k8s.io/v1
    kind: TCPRoute
    metadata: {name: db}
    spec:
      parentRefs: [{name: gateway, sectionName: postgres}]
      rules: [{backendRefs: [{name: db}]}]
"#;

#[test]
fn what_is_about_connections_is_read() {
    let mesh = parse(CONNECTIONS).unwrap();
    let listeners: Vec<_> = mesh.listeners.iter().map(|l| (&*l.name, l.port)).collect();
    assert_eq!(listeners, [("postgres", 15432), ("secure", 18443)]);
    assert_eq!(mesh.services[1].upstreams[0].port, Some(15433));
    assert_eq!(mesh.options.tcp.max_connections, 5);
    assert_eq!(mesh.options.tcp.idle_timeout.as_secs(), 600);
    assert_eq!(mesh.tcp_routes.len(), 1);
    let egress = mesh.options.egress.unwrap();
    assert!(egress.allows_name("api.example.com", 1) && egress.allows_name("a.example.org", 443));
    assert!(!egress.allows_name("a.example.org", 80) && !egress.allow_by_default);
}

#[test]
fn each_mistake_about_connections_has_its_place() {
    let refused = |from: &str, to: &str, wanted: &str| {
        assert!(CONNECTIONS.contains(from), "{from}");
        let error = parse(&CONNECTIONS.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}\n{error}");
    };
    refused("protocol: TLS}", "protocol: UDP}", "gateway.listeners[1].protocol: \"UDP\" is not");
    refused("port: 18443", "port: 15432", "gateway.listeners[1].port: 15432 is here twice");
    refused("name: secure", "name: postgres", "gateway.listeners[1].name: postgres is here twice");
    refused("default: Deny", "default: deny", "egress.default: \"deny\" is not known");
    refused("api.example.com", "api_example", "egress.hosts[0]: \"api_example\" is neither");
    refused("8443]}", "0]}", "egress.hosts[1].ports[1]: 0 is no port");
    refused("50ms", "soon", "tcp.detectionTimeout: \"soon\" is not a duration");
    refused("service: db", "service: web", "upstreams[0].service: the protocol of web is not tcp");
    refused(
        "{name: v1, command: [sh]}]\nroutes",
        "{name: v1, replicas: 2, command: [sh]}]\nroutes",
        "services[1].upstreams[0].port: is fixed, so there can be one process",
    );
    refused(
        "sectionName: postgres",
        "sectionName: secure",
        "routes[0].spec.parentRefs[0]: names no listener in gateway.listeners with protocol TCP",
    );
}

#[test]
fn who_may_is_read() {
    let with = |text: &str| parse(&GOOD.replacen("services:", &format!("{text}\nservices:"), 1));
    let options = with("").unwrap().options;
    assert!(!options.deny_by_default && !options.hide_policies);
    assert_eq!(options.escaped_slashes.to_string(), "Reject");
    let said = "authorization: {default: Deny, explain: false}\npath: {escapedSlashes: Keep}";
    let options = with(said).unwrap().options;
    assert!(options.deny_by_default && options.hide_policies);
    assert_eq!(options.escaped_slashes.to_string(), "Keep");
    for (text, line) in [
        ("path: {escapedSlashes: Decode}", "is \"Decode\"; use Reject or Keep"),
        ("authorization: {default: Maybe}", "is \"Maybe\"; use Allow or Deny"),
        ("authorization: {defaults: Deny}", "is not a field here"),
    ] {
        let error = with(text).unwrap_err().to_string();
        assert!(error.contains(line), "{error}");
    }
}
