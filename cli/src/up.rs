//! `weir up`: a whole mesh on this machine.
//!
//! Everything runs on one thread, which lives as long as the program: children
//! are tied to the thread that made them (see [`spawn`]).

pub mod data;
mod desired;
pub mod plan;
mod ports;
pub mod ready;
mod show;
pub mod spawn;
pub mod start;
pub mod supervise;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Error;
use crate::mesh_file::{self, MeshFile};
use crate::output::say;
use crate::{runtime_file, tour};
use data::Data;
use show::Edges;
use start::{Running, start};
use supervise::Supervisor;

/// From the first signal until everything left is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// A log that grows past this is cut to nothing: 64 MiB.
const MAX_LOG: u64 = 64 << 20;

/// Arguments of `weir up`.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// The mesh file; default: the example mesh (`weir init` writes one to begin with)
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where state lives; default: a temporary directory, removed at exit
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Write one JSON object here when all is ready: URLs, token, processes
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// The gateway's port; default: 8080, or a free one where that is taken
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub gateway_port: Option<u16>,
    /// The control API's port; default: 9000, or a free one where that is taken
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub control_port: Option<u16>,
    /// Walk through the story against the running mesh, measure and check each
    /// step, stop, and exit 0 or 1
    #[arg(long)]
    pub tour: bool,
    /// Write no access logs
    #[arg(long)]
    pub no_access_log: bool,
    /// Where to find services beside those of the mesh file.
    #[command(flatten)]
    pub consul: weir_control_plane::ConsulArgs,
}

impl UpArgs {
    /// Runs it until a signal, or to the end of the tour.
    ///
    /// # Errors
    /// What keeps the mesh from running.
    pub fn run(self) -> Result<ExitCode, Error> {
        // Also removes what meshes that were killed have left.
        let _ = runtime_file::newest();
        let mesh = match &self.file {
            Some(path) => mesh_file::load(path)?,
            None => MeshFile::example()?,
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::new(format!("cannot start: {error}")))?
            .block_on(up(self, mesh))
    }
}

async fn up(args: UpArgs, mesh: MeshFile) -> Result<ExitCode, Error> {
    let mut signals = Signals::new()?;
    let data = Data::open(args.data.as_deref())?;
    let (mut supervisor, events) = Supervisor::new();
    let began = Instant::now();
    say(&format!("starting {} ...", describe(&args, &mesh)));
    let started = tokio::select! {
        started = start(&args, &mesh, &data, &mut supervisor) => started,
        () = signals.next() => Err(Error::new("stopped while starting")),
    };
    let mut running = match started {
        Ok(started) => started.running(supervisor, events, data, began.elapsed(), !args.tour),
        Err(error) => {
            supervisor.stop(STOP_DEADLINE, signals.next()).await;
            return Err(error);
        }
    };
    let outcome = tokio::select! {
        outcome = run(&args, &mesh, &mut running) => outcome,
        () = signals.next() => Ok(ExitCode::SUCCESS),
    };
    say("stopping ...");
    let hurry = signals.next();
    running.supervisor.stop(STOP_DEADLINE, hurry).await;
    if let Some(path) = &args.ready_file {
        let _ = std::fs::remove_file(path);
    }
    outcome
}

async fn run(args: &UpArgs, mesh: &MeshFile, running: &mut Running) -> Result<ExitCode, Error> {
    introduce(mesh, running);
    if let Some(path) = &args.ready_file {
        ready::write(path, &running.urls, &running.supervisor.states())?;
    }
    if args.tour {
        return Ok(tour::run(running).await);
    }
    watch(args, running).await
}

fn describe(args: &UpArgs, mesh: &MeshFile) -> String {
    let services = match mesh.services.len() {
        1 => "1 service".to_owned(),
        n => format!("{n} services"),
    };
    let what = match &args.file {
        Some(path) => path.display().to_string(),
        None => "the example mesh".to_owned(),
    };
    format!("{what}: {services}, their routers, a gateway and the control plane")
}

/// Says what runs where, and one thing to try.
fn introduce(mesh: &MeshFile, running: &Running) {
    let states = running.supervisor.states();
    say(&format!(
        "{} processes are ready after {:.1} s\n\n{}",
        states.len(),
        running.took.as_secs_f64(),
        show::text(&show::processes(&states))
    ));
    say(&format!("gateway      {}", running.urls.gateway));
    say(&format!("control API  {}/openapi.json", running.urls.control));
    say(&format!("logs         {}", running.data.join("logs").display()));
    for note in &running.notes {
        say(&format!("note: {note}"));
    }
    if let Some(command) = curl(mesh, &running.urls.gateway) {
        say(&format!("\ntry: {command}"));
    }
    say("Ctrl-C stops everything\n");
}

/// A request that the first suitable route of the gateway serves.
fn curl(mesh: &MeshFile, gateway: &str) -> Option<String> {
    use weir_mesh::model::{HostPattern, Parent, PathMatch, RouteKind};
    let routes = mesh
        .routes
        .iter()
        .filter(|route| route.kind == RouteKind::Http && route.parents.contains(&Parent::Gateway));
    // In the example mesh products can be read without an account.
    let route =
        routes.clone().find(|route| &*route.name == "products").or(routes.clone().next())?;
    let host = match route.hostnames.first() {
        Some(HostPattern::Exact(name)) => format!("-H 'host: {name}' "),
        Some(HostPattern::Suffix(suffix)) => format!("-H 'host: www{suffix}' "),
        None => String::new(),
    };
    let path = match &route.rules.first()?.matches.first()?.path {
        PathMatch::Exact(path) => path.to_string(),
        PathMatch::Prefix(path) if path.is_empty() => "/".to_owned(),
        PathMatch::Prefix(path) => path.to_string(),
        // What would fit a pattern is not known.
        PathMatch::Regex(_) | PathMatch::GrpcMethod(_) | PathMatch::GrpcRegex { .. } => {
            return None;
        }
    };
    Some(format!("curl -i {host}{gateway}{path}"))
}

/// Shows the mesh and keeps the ready file true, for ever.
async fn watch(args: &UpArgs, running: &mut Running) -> Result<ExitCode, Error> {
    let mut edges = Edges::new();
    let mut changes = running.supervisor.changes();
    changes.mark_unchanged();
    let mut ticks = tokio::time::interval(show::PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            Some(event) = running.events.recv() => edges.say(&show::event(&event)),
            Ok(()) = changes.changed() => {
                if let Some(path) = &args.ready_file {
                    ready::write(path, &running.urls, &running.supervisor.states())?;
                }
            }
            _ = ticks.tick() => {
                // A control plane that hangs must not keep the ready file from being true.
                let shown = edges.refresh(&mut running.client);
                let _ = tokio::time::timeout(show::PERIOD, shown).await;
                cut_logs(&running.data.join("logs"));
            }
        }
    }
}

/// Keeps logs finite. Their writers append, so cutting is safe.
fn cut_logs(directory: &std::path::Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.metadata().is_ok_and(|meta| meta.len() > MAX_LOG)
            && let Ok(file) = std::fs::OpenOptions::new().write(true).open(entry.path())
        {
            let _ = file.set_len(0);
        }
    }
}

/// The signals that end a mesh.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let one = |kind| {
            signal(kind).map_err(|error| Error::new(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            interrupt: one(SignalKind::interrupt())?,
            terminate: one(SignalKind::terminate())?,
            hangup: one(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
