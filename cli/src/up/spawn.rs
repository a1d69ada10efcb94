//! One process: what it is started with, and starting it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use tokio::process::{Child, Command};

use super::ports::Reservation;

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The control plane.
    ControlPlane,
    /// The router that faces the outside.
    Gateway,
    /// A router beside an application.
    Sidecar,
    /// An application.
    App,
}

impl Role {
    /// As the ready file names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Gateway => "gateway",
            Self::Sidecar => "sidecar",
            Self::App => "app",
        }
    }
}

/// A listener that a process is told by a flag.
#[derive(Debug, Clone)]
pub struct Listen {
    /// `--inbound-listen`
    pub flag: &'static str,
    /// What the process's ready file calls it.
    pub key: &'static str,
    /// Where it listens the first time; after that, where it was.
    pub first: String,
}

/// How to start a process, and start it again.
#[derive(Debug)]
pub struct Spec {
    /// Unique in the mesh; also names its log.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Empty for the control plane.
    pub service: String,
    /// Empty for the control plane and the gateway.
    pub version: String,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Added to `command`, with the addresses of the process's first life.
    pub listens: Vec<Listen>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// Where it runs.
    pub directory: Option<PathBuf>,
    /// The file by which it says that it serves; none for programs that are not
    /// Weir's.
    pub ready_file: Option<PathBuf>,
    /// Its standard output and standard error.
    pub log: PathBuf,
    /// Keep its ports from others.
    pub reservations: Vec<Reservation>,
}

/// What a process told of its listeners: `{"inbound": "127.0.0.1:40001"}`.
pub type Addresses = BTreeMap<String, String>;

/// Starts a process in a group of its own, so that Ctrl-C reaches only `weir
/// up`, and tied to this one's life. Must run on a thread that lives as long as
/// the program: the kernel ties a child to the thread that made it.
///
/// # Errors
/// The log cannot be opened, or the operating system makes no process.
pub fn spawn(spec: &mut Spec, addresses: &Addresses) -> io::Result<Child> {
    if let Some(path) = &spec.ready_file {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let log = open_log(&spec.log)?;
    let mut command = Command::new(own_program()?);
    command.args(["exec-child", "--parent"]).arg(std::process::id().to_string()).arg("--");
    command.args(&spec.command);
    for listen in &spec.listens {
        command.arg(listen.flag).arg(addresses.get(listen.key).unwrap_or(&listen.first));
    }
    if let Some(path) = &spec.ready_file {
        command.arg("--ready-file").arg(path);
    }
    if let Some(directory) = &spec.directory {
        command.current_dir(directory);
    }
    // The control API's token is nobody else's business.
    command.env_remove("WEIR_TOKEN").env_remove("WEIR_CONTROL");
    command.envs(spec.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.process_group(0);
    for reservation in &mut spec.reservations {
        reservation.make_way();
    }
    command.spawn()
}

/// This program's path, as it was when it was first asked for: once the file is
/// replaced by a newer build, the kernel knows no name for what runs here.
///
/// # Errors
/// The operating system does not tell.
pub fn own_program() -> io::Result<PathBuf> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PROGRAM.get() {
        return Ok(path.clone());
    }
    let path = std::env::current_exe()?;
    Ok(PROGRAM.get_or_init(|| path).clone())
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Reads a ready file, once it is there and whole.
#[must_use]
pub fn read_ready(path: &Path) -> Option<Addresses> {
    let told: BTreeMap<String, Option<String>> =
        serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(told.into_iter().filter_map(|(key, address)| Some((key, address?))).collect())
}

/// The last `count` lines of a log.
#[must_use]
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    const TAIL: u64 = 16 << 10;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}
