//! Two network namespaces: the pod's, in which the test runs again, and its peer's.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::SockRef;

/// Set for the run inside of the pod's namespace.
const INSIDE: &str = "WEIR_TEST_INSIDE_NETNS";

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// The pod's address.
pub const POD: &str = "10.77.0.2";

/// What the programs are needed for.
const PROGRAMS: [&str; 6] = ["unshare", "nsenter", "ip", "nft", "setpriv", "bash"];

/// Whether this process may make network namespaces. Where every test must run, as
/// `.ci/run` has it by `WEIR_TESTS=all`, it is a failure that it may not.
pub fn allowed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&&str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    let missing: Vec<_> = PROGRAMS.iter().filter(|program| !is_there(program)).collect();
    let trial = ["-n", "nft", "add", "table", "inet", "trial"];
    let works = missing.is_empty() && output("unshare", &trial).status.success();
    if !works {
        let why = format!("no right to make a network namespace, or no {missing:?}");
        assert!(std::env::var("WEIR_TESTS").as_deref() != Ok("all"), "{why}");
        eprintln!("skipped: {why}");
    }
    works
}

/// Runs the test of this name again inside of a namespace of its own.
pub fn inside(name: &str, test: impl FnOnce(&World)) {
    if std::env::var_os(INSIDE).is_some() {
        return test(&World::new());
    }
    if !allowed() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .arg("-n")
        .arg(this)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

pub fn output(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Standard output of a command that must succeed.
pub fn must(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether it succeeded, and its standard output.
pub fn with_input(command: &mut Command, input: &str) -> (bool, String) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// A network namespace, which lives as long as a process that does nothing.
pub struct Namespace(Child);

impl Namespace {
    pub fn new() -> Self {
        let mut command = Command::new("unshare");
        // `cat` ends with this process, whatever becomes of it.
        let child = command.args(["-n", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let namespace = Self(child);
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        let began = Instant::now();
        while std::fs::read_link(namespace.path()).is_ok_and(|theirs| theirs == ours) {
            assert!(began.elapsed() < DEADLINE, "no namespace");
            thread::yield_now();
        }
        namespace
    }

    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let net = format!("--net={}", self.path());
        output("nsenter", &[&[&net, program], arguments].concat())
    }

    /// Runs something in it. Sockets that it makes stay there.
    fn within<T: Send + 'static>(&self, run: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(self.path()).unwrap();
        let thread = thread::spawn(move || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).unwrap();
            run()
        });
        thread.join().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The pod, in this process's namespace, and its peer.
pub struct World {
    peer: Namespace,
}

impl World {
    fn new() -> Self {
        let peer = Namespace::new();
        let pid = peer.0.id().to_string();
        must("ip", &["link", "set", "lo", "up"]);
        must("ip", &["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        for (address, to) in [("10.77.0.2/24", "4"), ("fd77::2/64", "6")] {
            let nodad: &[&str] = if to == "6" { &["nodad"] } else { &[] };
            must("ip", &[&["address", "add", address, "dev", "eth0"], nodad].concat());
        }
        must("ip", &["link", "set", "eth0", "up"]);
        for arguments in [
            "ip link set lo up",
            "ip address add 10.77.0.1/24 dev eth0",
            "ip address add fd77::1/64 dev eth0 nodad",
            "ip address add 10.88.0.1/32 dev lo",
            "ip address add fd88::1/128 dev lo nodad",
            "ip link set eth0 up",
        ] {
            let words: Vec<_> = arguments.split(' ').collect();
            let output = peer.run(words[0], &words[1..]);
            assert!(output.status.success(), "{arguments}: {output:?}");
        }
        must("ip", &["route", "add", "default", "via", "10.77.0.1"]);
        must("ip", &["-6", "route", "add", "default", "via", "fd77::1"]);
        // The router, and the application.
        for (address, name) in [
            ("127.0.0.1:15001", "outbound"),
            ("[::1]:15001", "outbound"),
            ("[::]:15006", "inbound"),
            ("[::]:15020", "app"),
            ("[::]:8080", "app"),
            ("[::]:22", "app"),
        ] {
            serve(TcpListener::bind(address).unwrap(), name);
        }
        peer.within(|| {
            for port in [80, 3306, 9005] {
                serve(TcpListener::bind(("::", port)).unwrap(), "peer");
            }
            let socket = UdpSocket::bind("0.0.0.0:80").unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 16];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(b"peer", from);
                }
            });
        });
        Self { peer }
    }

    /// What a connection from the pod hears: who took it, and where it was meant to go.
    pub fn pod_hears(&self, to: &str) -> String {
        hear(to)
    }

    /// The same, of a connection from the world.
    pub fn peer_hears(&self, to: &str) -> String {
        let to = to.to_owned();
        self.peer.within(move || hear(&to))
    }

    pub fn pod_hears_by_udp(&self, to: &str) -> String {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.send_to(b"hello", to).unwrap();
        let mut buffer = [0; 16];
        let (length, _) = socket.recv_from(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

fn hear(to: &str) -> String {
    let address: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)
        .unwrap_or_else(|error| panic!("{to}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    heard
}

/// Tells everyone its name and where the connection was meant to go.
fn serve(listener: TcpListener, name: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(format!("{name} {}", original(&stream)).as_bytes());
        }
    });
}

fn original(stream: &TcpStream) -> SocketAddr {
    let local = stream.local_addr().unwrap();
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    let socket = SockRef::from(stream);
    let address = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    address.ok().and_then(|address| address.as_socket()).unwrap_or(local)
}
