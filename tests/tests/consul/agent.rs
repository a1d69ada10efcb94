//! A real Consul on free ports of loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use http::Method;
use serde_json::{Value, json};
use weir_tests::process::{Signal, all_gone, send};
use weir_tests::{DEADLINE, Http, Reply, eventually, free_port};

use crate::app::App;

/// Runs Consul until standard input ends, however the test ends.
const GUARDIAN: &str = r#"
root=$1; shift
"$@" >>"$root/log" 2>&1 </dev/null &
consul=$!
echo "$consul" >"$root/pid"
read -r line
kill -KILL "$consul" 2>/dev/null
wait "$consul"
[ -e "$root/keep" ] || rm -rf "$root"
"#;

/// A running Consul.
pub struct Agent {
    root: PathBuf,
    args: Vec<String>,
    guardian: Option<(Child, ChildStdin)>,
    /// Of its HTTP API.
    pub url: String,
    token: Option<String>,
}

impl Agent {
    /// In memory alone.
    pub async fn dev(more: &[&str]) -> Self {
        Self::start(&[&["-dev"], more].concat(), None).await
    }

    /// With ACLs that deny what no token allows.
    pub async fn with_acls(management: &str) -> Self {
        let acl = format!(
            "acl {{ enabled = true default_policy = \"deny\" tokens {{ initial_management = \
             \"{management}\" agent = \"{management}\" }} }}"
        );
        Self::start(&["-dev", "-hcl", &acl], Some(management)).await
    }

    /// With https beside http. Gives its URL, and the file with its root.
    pub async fn with_tls(directory: &Path) -> (Self, String, PathBuf) {
        for args in [&["tls", "ca", "create"][..], &["tls", "cert", "create", "-server"]] {
            let made = Command::new("consul").args(args).current_dir(directory).output().unwrap();
            assert!(made.status.success(), "{made:?}");
        }
        let file = |name: &str| directory.join(name);
        let (certificate, key) = ("dc1-server-consul-0.pem", "dc1-server-consul-0-key.pem");
        let tls = format!(
            "tls {{ https {{ cert_file = {:?} key_file = {:?} }} }}",
            file(certificate),
            file(key)
        );
        let port = free_port();
        let https = format!("-https-port={port}");
        let agent = Self::dev(&["-hcl", &tls, &https]).await;
        (agent, format!("https://127.0.0.1:{port}"), file("consul-agent-ca.pem"))
    }

    /// One that knows after a restart what it knew.
    pub async fn lasting() -> Self {
        let args =
            ["-server", "-bootstrap-expect=1", "-hcl", "performance { raft_multiplier = 1 }"];
        Self::start(&args, None).await
    }

    async fn start(how: &[&str], token: Option<&str>) -> Self {
        let root = tempfile::Builder::new().prefix("weir-consul-").tempdir().unwrap().keep();
        let http = free_port();
        let mut args: Vec<String> = ["agent", "-bind=127.0.0.1", "-client=127.0.0.1"]
            .iter()
            .chain(how)
            .map(|word| (*word).to_owned())
            .collect();
        if !how.contains(&"-dev") {
            args.push(format!("-data-dir={}", root.join("data").display()));
        }
        args.push(format!("-http-port={http}"));
        for port in ["server", "serf-lan", "serf-wan"] {
            args.push(format!("-{port}-port={}", free_port()));
        }
        for port in ["dns", "grpc", "grpc-tls"] {
            args.push(format!("-{port}-port=-1"));
        }
        let url = format!("http://127.0.0.1:{http}");
        let token = token.map(str::to_owned);
        let mut agent = Self { root, args, guardian: None, url, token };
        agent.run().await;
        agent
    }

    /// Starts it, again with what it was started with.
    pub async fn run(&mut self) {
        let mut command = Command::new("sh");
        command.args(["-c", GUARDIAN, "sh"]).arg(&self.root).arg("consul").args(&self.args);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = fs::remove_file(self.root.join("keep"));
        let mut guardian = command.spawn().unwrap();
        let stdin = guardian.stdin.take().unwrap();
        self.guardian = Some((guardian, stdin));
        eventually("Consul has a leader", || async {
            let nodes = self.http().get("/v1/catalog/nodes").try_send().await.ok()?;
            let nodes = (nodes.status == 200).then(|| nodes.json())?;
            nodes.as_array().is_some_and(|nodes| !nodes.is_empty()).then_some(())
        })
        .await;
    }

    /// As `kill -9` does it.
    pub fn kill(&mut self) {
        fs::write(self.root.join("keep"), "").unwrap();
        let pid = fs::read_to_string(self.root.join("pid")).unwrap().trim().parse().unwrap();
        send(pid, Signal::KILL);
        all_gone(&[pid], DEADLINE);
        if let Some((mut guardian, stdin)) = self.guardian.take() {
            drop(stdin);
            guardian.wait().unwrap();
        }
    }

    /// A client of its API.
    pub fn http(&self) -> Http {
        let http = Http::new(&self.url);
        match &self.token {
            Some(token) => http.with_header("x-consul-token", token),
            None => http,
        }
    }

    async fn put(&self, path: &str, body: &Value) -> Reply {
        let reply = self.http().call(Method::PUT, path).json(body).send().await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply
    }

    /// Registers an application by a TTL check that passes.
    pub async fn register(&self, service: &str, id: &str, app: &App, more: Value) {
        let mut body = json!({
            "ID": id,
            "Name": service,
            "Address": app.address.ip().to_string(),
            "Port": app.address.port(),
            "Tags": ["weir"],
            "Check": {"CheckID": id, "TTL": "1h", "Status": "passing"},
        });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.put("/v1/agent/service/register?replace-existing-checks", &body).await;
    }

    /// `passing`, `warning` or `critical`.
    pub async fn health(&self, id: &str, status: &str) {
        self.put(&format!("/v1/agent/check/update/{id}"), &json!({"Status": status})).await;
    }

    pub async fn maintenance(&self, id: &str, enable: bool) {
        let path = format!("/v1/agent/service/maintenance/{id}?enable={enable}");
        self.put(&path, &json!({})).await;
    }

    pub async fn deregister(&self, id: &str) {
        self.put(&format!("/v1/agent/service/deregister/{id}"), &json!({})).await;
    }

    /// Makes a token whose policy has these rules.
    pub async fn token(&self, name: &str, rules: &str) -> String {
        self.put("/v1/acl/policy", &json!({"Name": name, "Rules": rules})).await;
        let body = json!({"Policies": [{"Name": name}]});
        let token = self.put("/v1/acl/token", &body).await.json();
        token["SecretID"].as_str().unwrap().to_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some((mut guardian, stdin)) = self.guardian.take() {
            drop(stdin);
            let _ = guardian.wait();
        } else {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}
