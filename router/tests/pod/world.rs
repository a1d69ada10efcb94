//! A node and its pods: network namespaces with routers, whose sockets this process
//! holds.

use std::fs::{self, File};
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::plane::DOMAIN;

pub const DEADLINE: Duration = Duration::from_secs(30);
/// Of routers in pods.
const USER: &str = "15000";

pub fn must(program: &str, args: &str) {
    let args: Vec<_> = args.split(' ').collect();
    let output = Command::new(program).args(&args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

/// Asks until there is an answer.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A network namespace, at 10.99.N.2.
pub struct Pod {
    pub number: u8,
    /// Keeps the namespace.
    holder: Child,
    router: Option<Child>,
    directory: PathBuf,
}

impl Drop for Pod {
    fn drop(&mut self) {
        for child in self.router.iter_mut().chain([&mut self.holder]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Pod {
    pub fn new(number: u8, directory: &Path) -> Self {
        let holder = Command::new("unshare").args(["-n", "sleep", "600"]).spawn().unwrap();
        let pid = holder.id();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let began = Instant::now();
        while fs::read_link(format!("/proc/{pid}/ns/net")).ok().is_none_or(|ns| ns == own) {
            assert!(began.elapsed() < DEADLINE, "no namespace");
            thread::sleep(Duration::from_millis(5));
        }
        let node = format!("p{number}");
        must("ip", &format!("link add {node} type veth peer name eth0 netns {pid}"));
        must("ip", &format!("address add 10.99.{number}.1/24 dev {node}"));
        must("ip", &format!("link set {node} up"));
        let pod = Self { number, holder, router: None, directory: directory.to_owned() };
        pod.must("ip", &format!("address add 10.99.{number}.2/24 dev eth0"));
        pod.must("ip", "link set lo up");
        pod.must("ip", "link set eth0 up");
        pod.must("ip", &format!("route add default via 10.99.{number}.1"));
        pod
    }

    pub fn must(&self, program: &str, args: &str) {
        must("nsenter", &format!("-t {} -n {program} {args}", self.holder.id()));
    }

    pub fn ip(&self) -> String {
        format!("10.99.{}.2", self.number)
    }

    pub fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.ip())
    }

    /// As the init container does it.
    pub fn redirect(&self) {
        self.must("nft", "add table ip weir");
        self.must("nft", "add chain ip weir out { type nat hook output priority -100 ; }");
        self.must("nft", "add chain ip weir in { type nat hook prerouting priority -100 ; }");
        self.must(
            "nft",
            &format!(
                "add rule ip weir out meta skuid != {USER} ip daddr != 127.0.0.0/8 tcp dport \
                 1-65535 redirect to :15001"
            ),
        );
        self.must(
            "nft",
            "add rule ip weir in iifname eth0 tcp dport != { 15006, 15020 } redirect to :15006",
        );
    }

    /// Runs a router beside `namespace/pod`, whose service account is `account`.
    pub fn router(&mut self, id: &str, account: &str, control: SocketAddr, more: &[&str]) {
        let token = self.directory.join(format!("token-{}", self.number));
        fs::write(&token, account).unwrap();
        let (workload, namespace) =
            id.split_once('/').map(|(namespace, pod)| (pod, namespace)).unwrap();
        let log = File::create(self.directory.join(format!("log-{}", self.number))).unwrap();
        let pid = self.holder.id().to_string();
        let binary = self.directory.join("weir-router");
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &pid, "-n", "--setuid", USER, "--setgid", USER])
            .arg(binary)
            .args(["--outbound-listen", "127.0.0.1:15001", "--inbound-listen", "0.0.0.0:15006"])
            .args(["--admin-listen", "0.0.0.0:15020"])
            .args(more)
            .env_clear()
            .env("WEIR_PLATFORM", "kubernetes")
            .env("WEIR_ROLE", "sidecar")
            .env("WEIR_SERVICE", format!("{workload}.{namespace}"))
            .env("WEIR_INSTANCE_ID", id)
            .env("WEIR_POD_IP", self.ip())
            .env("WEIR_NAMESPACE", namespace)
            .env("WEIR_CONTROL_MESH", control.to_string())
            .env("WEIR_TRUST_BUNDLE", self.directory.join("ca.pem"))
            .env("WEIR_JOIN_TOKEN_FILE", token)
            .env("WEIR_TRUST_DOMAIN", DOMAIN)
            .env("WEIR_TRANSPARENT", "true")
            .env("WEIR_ACCESS_LOG", "-")
            .env("WEIR_OPAQUE_PORTS", "")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null());
        self.router = Some(command.spawn().unwrap());
    }

    /// The router's process id.
    pub fn router_pid(&self) -> u32 {
        self.router.as_ref().unwrap().id()
    }

    /// Whether the router has ended.
    pub fn has_ended(&mut self) -> bool {
        self.router.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// What the router has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join(format!("log-{}", self.number))).unwrap()
    }

    /// Runs something inside: its sockets stay there.
    pub fn run<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let inside = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(inside.as_fd(), network).unwrap();
                run()
            });
            entered.join().unwrap()
        })
    }

    pub fn listen(&self, port: u16) -> TcpListener {
        self.run(|| TcpListener::bind(("0.0.0.0", port)).unwrap())
    }

    pub fn connect(&self, to: &str) -> TcpStream {
        self.run(|| connect(to)).unwrap()
    }

    /// GET, and the whole answer.
    pub fn get(&self, to: &str, host: &str, path: &str) -> String {
        get(self.connect(to), host, path)
    }
}

pub fn connect(to: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to.parse().unwrap(), DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Ok(stream)
}

pub fn get(mut stream: TcpStream, host: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    hear(stream).expect("an answer")
}

/// All until the end.
pub fn hear(mut stream: TcpStream) -> std::io::Result<String> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    Ok(String::from_utf8_lossy(&got).into_owned())
}

/// Answers each HTTP/1.1 request with what it looks like.
pub fn http_app(listener: TcpListener, name: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || http_connection(stream, name));
        }
    });
}

fn http_connection(mut stream: TcpStream, name: &str) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte).is_ok_and(|count| count > 0) {
        head.push(byte[0]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let body = format!("I am {name}\n{}", String::from_utf8_lossy(&head));
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        let last = body.contains("connection: close");
        if stream.write_all(answer.as_bytes()).is_err() || last {
            return;
        }
        head.clear();
    }
}

/// Speaks first, and says what it hears until the other end is done.
pub fn tcp_app(listener: TcpListener, name: &'static str) {
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.write_all(format!("220 {name}\n").as_bytes());
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    let _ = stream.write_all(&bytes[..count]);
                }
            });
        }
    });
}

/// Says something to a server that speaks first, and hears all that comes.
pub fn talk(mut stream: TcpStream, said: &str) -> std::io::Result<String> {
    stream.write_all(said.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    hear(stream)
}
