//! A router that answers at another service's address.

use std::fs;
use std::process::{Child, Command, Stdio};

use weir_tests::{eventually, weir};

use crate::world::{is_echoed, is_reset, world};

/// A router that the test runs itself, beside those of the mesh.
struct Router(Child);

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a router of `service`, in front of a process that sends everything back.
fn router(service: &str, flags: &[&str]) -> Router {
    let pid = world().mesh.pid("caller-v1-1-router");
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let words: Vec<&str> = line.split('\0').collect();
    let value = |flag: &str| words[words.iter().position(|word| *word == flag).unwrap() + 1];
    let token = value("--join-token-file").replace("caller", service);
    let app = format!("127.0.0.1:{}", world().elsewhere);
    let child = Command::new(weir!())
        .args(["router", "--service", service, "--app", &app, "--app-protocol", "tcp"])
        .args(["--control", value("--control"), "--trust-bundle", value("--trust-bundle")])
        .args(["--join-token-file", &token, "--log-level", "error"])
        .args(flags)
        .stdout(Stdio::null())
        .spawn();
    Router(child.unwrap())
}

#[tokio::test]
async fn whoever_takes_a_services_address_does_not_get_its_connections() {
    let port = world().free;
    // It registers where the other one listens.
    let listen = format!("127.0.0.1:{port}");
    let honest = router("faked", &["--inbound-listen", &listen, "--advertise", "127.0.0.2"]);
    let there = format!("127.0.0.2:{port}");
    let imposter = router("caller", &["--inbound-listen", &there]);
    eventually("both routers", || async {
        let listed = world().mesh.weir(&["get", "instances", "-o", "json"]).json();
        let all = listed["instances"].as_array().unwrap().clone();
        let of = |service: &str| {
            all.iter().any(|i| i["service"] == service && i["address"] == there.as_str())
        };
        (of("faked") && of("caller")).then_some(())
    })
    .await;
    let refused = |line: &serde_json::Value| {
        let error = line["error"].as_str().unwrap_or_default();
        line["route"] == "faked" && error.contains("sa/caller")
    };
    eventually("the imposter is found out", || async {
        assert!(is_reset(world().port("faked")).await, "an imposter was connected to");
        world().mesh.access_log().iter().any(|(_, line)| refused(line)).then_some(())
    })
    .await;
    drop((honest, imposter));

    // The same router at its own address is what it says.
    let _honest = router("faked", &["--inbound-listen", "127.0.0.1:0"]);
    eventually("the service", || async { is_echoed(world().port("faked")).await.then_some(()) })
        .await;
}
