//! A PostgreSQL server of the test's own, and databases on it.

// Not every test that has it asks for all of it.
#![allow(dead_code)]

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use weir_mesh::server::DatabaseUrl;

/// Of user `weir`, by TCP.
pub const PASSWORD: &str = "s3cret";

/// Runs as the user that owns the server. It ends, and leaves nothing, when the
/// end of its standard input says that the tests have.
const SCRIPT: &str = r#"
set -eu
bin=$1 port=$2
dir=$(mktemp -d)
trap '' INT
trap 'rm -rf "$dir"' EXIT
cd "$dir"
printf '%s' "$3" > password
"$bin/initdb" -D data -U weir -E UTF8 --locale=C.UTF-8 --no-sync --pwfile=password \
  --auth-local=trust --auth-host=scram-sha-256 > log 2>&1 || { cat log >&2; exit 1; }
"$bin/postgres" -D data -k "$dir" -p "$port" -c listen_addresses=127.0.0.1 \
  -c fsync=off -c max_connections=400 >> log 2>&1 < /dev/null &
server=$!
tries=0
until "$bin/pg_isready" -q -h "$dir" -p "$port"; do
  tries=$((tries + 1))
  if [ $tries -gt 600 ] || ! kill -0 $server; then cat log >&2; exit 1; fi
  sleep 0.1
done
echo "$dir"
cat > /dev/null || true
kill -QUIT $server
wait $server || true
"#;

/// The server that all tests of a program share.
pub struct Server {
    bin: PathBuf,
    /// On 127.0.0.1, for user `weir` with [`PASSWORD`].
    pub port: u16,
    /// Directory of its socket, for anybody.
    pub socket: String,
    /// The server ends when its standard input does, as it does with the tests.
    _child: Child,
}

/// A new, empty database; `None` where PostgreSQL is not installed. `.ci/run` has
/// it by `WEIR_TESTS=all`: there it is a failure that it is not.
pub fn database() -> Option<DatabaseUrl> {
    let server = server()?;
    let name = server.create();
    // Without a password: in a program that is not optimised each takes long.
    let url = format!("postgres://weir@localhost:{}/{name}?host={}", server.port, server.socket);
    Some(url.parse().unwrap())
}

/// The server, as [`database`].
pub fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(start).as_ref();
    if server.is_none() {
        assert!(std::env::var("WEIR_TESTS").as_deref() != Ok("all"), "no postgres: install it");
        eprintln!("skipped: postgres is not installed");
    }
    server
}

impl Server {
    /// A new database's name.
    pub fn create(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        // An order of text of its own where the server has one: nothing may depend on it.
        let icu = format!(
            "CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'"
        );
        let plain = format!("CREATE DATABASE {name} TEMPLATE template0");
        assert!(self.run(&icu) || self.run(&plain), "no database");
        name
    }

    /// Runs statements as the server's owner; says whether they went well.
    pub fn run(&self, sql: &str) -> bool {
        let done = Command::new(self.bin.join("psql"))
            .args(["-q", "-U", "weir", "-d", "postgres", "-h", &self.socket])
            .args(["-p", &self.port.to_string(), "-c", sql])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        done.unwrap().success()
    }
}

fn start() -> Option<Server> {
    let bin = installed()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = as_owner()?;
    command.args(["sh", "-c", SCRIPT, "sh"]).arg(&bin).args([&port.to_string(), PASSWORD]);
    // A signal to the tests is not one to it.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    let mut socket = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut socket).unwrap();
    assert!(!socket.is_empty(), "postgres did not start");
    Some(Server { bin, port, socket: socket.trim().to_owned(), _child: child })
}

/// Where the server's programs are.
fn installed() -> Option<PathBuf> {
    let asked = Command::new("pg_config").arg("--bindir").output().ok();
    let asked = asked.map(|out| PathBuf::from(String::from_utf8(out.stdout).unwrap().trim()));
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    found.sort();
    found.reverse();
    asked.into_iter().chain(found).find(|bin| bin.join("initdb").exists())
}

/// The server refuses to run as root.
fn as_owner() -> Option<Command> {
    use std::os::unix::fs::MetadataExt as _;
    let root = Path::new("/proc/self").metadata().is_ok_and(|me| me.uid() == 0);
    if !root {
        return Some(Command::new("env"));
    }
    let user = Command::new("id").args(["-u", "postgres"]).output().ok()?;
    user.status.success().then(|| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command
    })
}
