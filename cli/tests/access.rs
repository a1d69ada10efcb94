//! Who somebody is to a control plane, by the command line: tokens that `weir access`
//! makes, and client certificates over TLS.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use serde_json::Value;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");

struct ControlPlane(Child);

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn weir(arguments: &[&str]) -> Output {
    let mut command = Command::new(WEIR);
    for name in ["CONTROL", "TOKEN", "CA", "CERT", "KEY"] {
        command.env_remove(format!("WEIR_{name}"));
    }
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes `ca.pem`, and NAME.pem and NAME.key of each.
fn certificates(dir: &Path, names: &[&str]) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::from_ca_cert_pem(&pem, key).unwrap();
    std::fs::write(dir.join("ca.pem"), &pem).unwrap();
    for name in names {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, *name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let pem = params.signed_by(&key, &issuer).unwrap().pem();
        std::fs::write(dir.join(format!("{name}.pem")), pem).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn start(dir: &Path) -> (ControlPlane, String) {
    let file = |name: &str| dir.join(name).display().to_string();
    let child = Command::new(WEIR)
        .args(["control-plane", "--data", &file("data"), "--ready-file", &file("ready.json")])
        .args(["--access", &file("access.yaml"), "--api-client-ca", &file("ca.pem")])
        .args(["--api-tls-cert", &file("server.pem"), "--api-tls-key", &file("server.key")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let plane = ControlPlane(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(ready) = std::fs::read(dir.join("ready.json")) {
            let ready: Value = serde_json::from_slice(&ready).unwrap();
            return (plane, format!("https://{}", ready["api"].as_str().unwrap()));
        }
        assert!(Instant::now() < deadline, "the control plane did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_token_and_a_certificate_say_who_somebody_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    certificates(dir.path(), &["server", "robot"]);
    let made = weir(&["access", "token", "ci", "--role", "shifter", "--services", "products"]);
    let made = text(&made.stdout);
    let token = made.lines().next().unwrap();
    let (_, entry) = made.split_once("\n\nThis is shown once.").unwrap();
    let (_, entry) = entry.split_once("\n\n").unwrap();
    assert!(token.len() == 43 && !entry.contains(token), "{made}");
    let access = format!("tokens:\n{entry}certificates:\n- {{commonName: robot, role: viewer}}\n");
    std::fs::write(dir.path().join("access.yaml"), access).unwrap();
    let (_plane, url) = start(dir.path());

    let ca = file("ca.pem");
    let with = |more: &[&str]| {
        let mut words = vec!["--control", &url, "--ca", &ca];
        words.extend(more);
        weir(&words)
    };
    let out = with(&["whoami", "--token", token]);
    assert_eq!(text(&out.stdout), "ci, by token: shifter of products\n", "{}", text(&out.stderr));
    let (cert, key) = (file("robot.pem"), file("robot.key"));
    let out = with(&["--cert", &cert, "--key", &key, "whoami"]);
    assert_eq!(text(&out.stdout), "robot, by certificate: viewer\n", "{}", text(&out.stderr));

    let out = with(&["shift", "users", "v1=1", "--token", token]);
    let error = text(&out.stderr);
    assert!(
        !out.status.success() && error.contains("ci may shift products, and not users"),
        "{error}"
    );
    let out = with(&["history", "--token", token]);
    let history = text(&out.stdout);
    assert!(history.contains("refused") && history.contains("Shift of service/users"), "{history}");
    let out = with(&["whoami", "--token", "somebody-elses"]);
    let error = text(&out.stderr);
    assert!(error.contains("does not know who calls") && !error.contains("somebody"), "{error}");
    let out = with(&["whoami", "--cert", &cert]);
    assert!(text(&out.stderr).contains("--cert and --key belong together"));
    let plain = url.replace("https", "http");
    let out = weir(&["--control", &plain, "whoami", "--cert", &cert, "--key", &key]);
    assert!(text(&out.stderr).contains("a certificate is shown by https alone"));
    // Another authority than the one that is trusted.
    certificates(dir.path(), &[]);
    let out = with(&["whoami", "--token", token]);
    assert!(text(&out.stderr).contains("cannot reach the control API"), "{}", text(&out.stderr));
}
