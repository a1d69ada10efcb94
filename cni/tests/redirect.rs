//! What the kernel does with connections of a pod: network namespaces, joined by a
//! veth pair, stand in for the pod and for the world around it.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

mod world;

use std::process::Command;

use world::{POD, World, allowed, inside, must, output};

const CNI: &str = env!("CARGO_BIN_EXE_weir-cni");

const SKIPS: [&str; 3] = [
    "--skip-outbound-ports=3306,9000-9010",
    "--skip-inbound-ports=22",
    "--skip-outbound-cidrs=10.88.0.0/16,fd88::/16",
];

fn redirect(arguments: &[&str]) -> String {
    must(CNI, &[&["redirect"], arguments].concat())
}

fn table() -> String {
    must("nft", &["list", "table", "inet", "weir"])
}

#[test]
fn connections_out_of_the_pod_come_to_the_router() {
    inside("connections_out_of_the_pod_come_to_the_router", |world: &World| {
        assert_eq!(world.pod_hears("10.77.0.1:80"), "peer 10.77.0.1:80");
        redirect(&SKIPS);
        assert_eq!(world.pod_hears("10.77.0.1:80"), "outbound 10.77.0.1:80");
        assert_eq!(world.pod_hears("[fd77::1]:80"), "outbound [fd77::1]:80");
        // By port, by range and by address.
        assert_eq!(world.pod_hears("10.77.0.1:3306"), "peer 10.77.0.1:3306");
        assert_eq!(world.pod_hears("[fd77::1]:3306"), "peer [fd77::1]:3306");
        assert_eq!(world.pod_hears("10.77.0.1:9005"), "peer 10.77.0.1:9005");
        assert_eq!(world.pod_hears("10.88.0.1:80"), "peer 10.88.0.1:80");
        assert_eq!(world.pod_hears("[fd88::1]:80"), "peer [fd88::1]:80");
        // The pod with itself.
        assert_eq!(world.pod_hears("127.0.0.1:8080"), "app 127.0.0.1:8080");
        assert_eq!(world.pod_hears(&format!("{POD}:8080")), format!("app {POD}:8080"));
        assert_eq!(world.pod_hears("[::1]:8080"), "app [::1]:8080");
        // The router's own, and those of the application's user.
        assert_eq!(as_user(15_000), "peer 10.77.0.1:80");
        assert_eq!(as_user(1_000), "outbound 10.77.0.1:80");
        // Not TCP.
        assert_eq!(world.pod_hears_by_udp("10.77.0.1:80"), "peer");
    });
}

fn as_user(uid: u32) -> String {
    let (reuid, regid) = (format!("--reuid={uid}"), format!("--regid={uid}"));
    let ask = "cat < /dev/tcp/10.77.0.1/80";
    must("setpriv", &[&reuid, &regid, "--clear-groups", "bash", "-c", ask])
}

#[test]
fn connections_into_the_pod_come_to_the_router() {
    inside("connections_into_the_pod_come_to_the_router", |world: &World| {
        assert_eq!(world.peer_hears("10.77.0.2:8080"), "app 10.77.0.2:8080");
        redirect(&SKIPS);
        assert_eq!(world.peer_hears("10.77.0.2:8080"), "inbound 10.77.0.2:8080");
        assert_eq!(world.peer_hears("[fd77::2]:8080"), "inbound [fd77::2]:8080");
        // A port that nobody listens on as well: the router answers for it.
        assert_eq!(world.peer_hears("10.77.0.2:4"), "inbound 10.77.0.2:4");
        assert_eq!(world.peer_hears("10.77.0.2:22"), "app 10.77.0.2:22");
        assert_eq!(world.peer_hears("10.77.0.2:15020"), "app 10.77.0.2:15020");
        // Routers speak to the inbound port itself.
        assert_eq!(world.peer_hears("10.77.0.2:15006"), "inbound 10.77.0.2:15006");
    });
}

#[test]
fn rules_are_replaced_whole_and_others_stay() {
    inside("rules_are_replaced_whole_and_others_stay", |world: &World| {
        must("nft", &["add", "table", "inet", "theirs"]);
        redirect(&SKIPS);
        let first = table();
        assert!(first.contains("skuid 15000") && first.contains("9000-9010"), "{first}");
        redirect(&SKIPS);
        assert_eq!(table(), first);
        redirect(&["--skip-ipv6"]);
        assert_eq!(world.pod_hears("[fd77::1]:80"), "peer [fd77::1]:80");
        assert_eq!(world.pod_hears("10.77.0.1:3306"), "outbound 10.77.0.1:3306");
        must("nft", &["list", "table", "inet", "theirs"]);
    });
}

#[test]
fn it_needs_one_capability_and_says_so() {
    inside("it_needs_one_capability_and_says_so", |world: &World| {
        let least = ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all,+net_admin"];
        must("setpriv", &[&least[..], &["--no-new-privs", CNI, "redirect"]].concat());
        assert_eq!(world.pod_hears("10.77.0.1:80"), "outbound 10.77.0.1:80");
        let nobody = ["--reuid=65532", "--regid=65532", "--clear-groups", CNI, "redirect"];
        let refused = output("setpriv", &nobody);
        assert!(!refused.status.success());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("NET_ADMIN"), "{said}");
    });
}

#[test]
fn redirection_is_proven_without_rights() {
    inside("redirection_is_proven_without_rights", |_: &World| {
        // The test's router has the usual port.
        let nobody = ["--reuid=65532", "--regid=65532", "--clear-groups", CNI, "verify"];
        let verify = || output("setpriv", &[&nobody[..], &["--outbound-port=15101"]].concat());
        must("ip", &["route", "add", "unreachable", "192.0.2.0/24"]);
        let without = verify();
        let said = String::from_utf8_lossy(&without.stderr).into_owned();
        assert!(!without.status.success() && said.contains("weir.dev/redirect: init"), "{said}");
        must("ip", &["route", "del", "unreachable", "192.0.2.0/24"]);
        redirect(&["--outbound-port=15101"]);
        let with = verify();
        assert!(with.status.success(), "{with:?}");
    });
}

#[test]
fn the_plugin_redirects_the_pod_that_asks_for_it() {
    if !allowed() {
        return;
    }
    let pod = world::Namespace::new();
    let made = r#"{"cniVersion":"1.0.0","ips":[]}"#;
    let config = |annotations: &str| {
        format!(
            r#"{{"cniVersion": "1.0.0", "name": "net", "type": "weir-cni", "prevResult": {made},
            "runtimeConfig": {{"io.kubernetes.cri.pod-annotations": {annotations}}}}}"#
        )
    };
    let path = pod.path();
    let run = |command: &str, annotations: &str| {
        let mut plugin = Command::new(CNI);
        plugin.env("CNI_COMMAND", command).env("CNI_NETNS", &path);
        world::with_input(&mut plugin, &config(annotations))
    };
    let has_table = || pod.run("nft", &["list", "table", "inet", "weir"]).status.success();
    let plain = r#"{"kubernetes.io/config.seen": "now"}"#;
    assert_eq!(run("ADD", plain), (true, made.to_owned()));
    assert!(!has_table());
    let asks = r#"{"weir.dev/redirect": "cni", "weir.dev/injected": "true",
        "weir.dev/redirect-arguments": "--outbound-port=15001 --skip-outbound-ports=25"}"#;
    let (ok, error) = run("CHECK", asks);
    assert!(!ok && error.contains("not redirected"), "{error}");
    assert_eq!(run("ADD", asks), (true, made.to_owned()));
    assert!(has_table());
    let rules = pod.run("nft", &["list", "table", "inet", "weir"]);
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    assert!(rules.contains("dport 25 return"), "{rules}");
    assert_eq!(run("CHECK", asks), (true, String::new()));
    assert_eq!(run("DEL", asks), (true, String::new()));
    let ours = output("nft", &["list", "table", "inet", "weir"]);
    assert!(!ours.status.success(), "the plugin changed the node's network");
}
