//! A real Redis server, on a port of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use weir_tests::process::{Signal, is_alive, send};

/// What routers find in their environment, where `passwordEnv` says.
pub const PASSWORD: &str = "a password of tests";

/// Kills the server when standard input ends, however the test ends.
const GUARDIAN: &str = r#"
"$@" >/dev/null 2>&1 </dev/null &
echo "$!"
read -r line
kill -KILL "$!" 2>/dev/null
wait "$!"
"#;

/// A server. Dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    pub port: u16,
    pid: u32,
    guardian: Child,
}

impl Redis {
    pub fn start(port: u16) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", GUARDIAN, "sh", "redis-server"]);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "no", "--requirepass", PASSWORD, "--dir", "/"]);
        let mut guardian = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(guardian.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let redis = Self { port, pid: line.trim().parse().unwrap(), guardian };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(is_alive(redis.pid), "redis-server on {port} ended; is it installed?");
            assert!(began.elapsed() < Duration::from_secs(10), "redis-server on {port}");
            std::thread::sleep(Duration::from_millis(10));
        }
        redis
    }

    /// Runs a command and gives what came first.
    pub fn say(&self, command: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let all = format!("AUTH \"{PASSWORD}\"\r\n{command}\r\nQUIT\r\n");
        stream.write_all(all.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let answer = answer.strip_prefix("+OK\r\n").unwrap_or_else(|| panic!("{answer}"));
        answer.strip_suffix("+OK\r\n").unwrap_or(answer).to_owned()
    }

    /// A connection for many commands.
    pub fn client(&self) -> Client {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut client = Client(BufReader::new(stream));
        client.send(&["AUTH", PASSWORD]);
        assert_eq!(client.line(), "+OK");
        client
    }

    /// Stops it from answering, as a machine that hangs.
    pub fn hold(&self) {
        send(self.pid, Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        send(self.pid, Signal::CONT);
    }
}

/// See [`Redis::client`].
#[derive(Debug)]
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Runs a command that answers with four numbers.
    pub fn integers(&mut self, parts: &[&str]) -> [u64; 4] {
        self.send(parts);
        assert_eq!(self.line(), "*4");
        [(); 4].map(|()| self.line().strip_prefix(':').unwrap().parse().unwrap())
    }

    fn send(&mut self, parts: &[&str]) {
        let mut command = format!("*{}\r\n", parts.len());
        for part in parts {
            command.push_str(&format!("${}\r\n{part}\r\n", part.len()));
        }
        self.0.get_mut().write_all(command.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}
