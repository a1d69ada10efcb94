//! Keeps processes running: starts them, starts them again when they die, and
//! ends them in order.

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::spawn::{Addresses, Role, Spec, last_lines, read_ready, spawn};
use crate::Error;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A process that ran this long is healthy again: its next death starts anew.
const STEADY: Duration = Duration::from_secs(10);
/// How long a ready file may take.
const READY_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// What is known of a process.
#[derive(Debug, Clone)]
pub struct State {
    /// As in its [`Spec`].
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// As in its [`Spec`].
    pub service: String,
    /// As in its [`Spec`].
    pub version: String,
    /// While it runs.
    pub pid: Option<u32>,
    /// What it told of its listeners; kept over restarts.
    pub addresses: Addresses,
    /// How often it died.
    pub deaths: u32,
}

/// Something a person wants to know.
#[derive(Debug, Clone)]
pub enum Event {
    /// A process died and will be started again.
    Died {
        /// Which.
        name: String,
        /// How: `exit status: 1`, `signal: 9 (SIGKILL)`.
        how: String,
    },
    /// It runs again.
    Restarted {
        /// Which.
        name: String,
        /// Its new process id.
        pid: u32,
    },
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Run,
    StopData,
    StopAll,
    Kill,
}

struct Shared {
    states: Mutex<Vec<State>>,
    changed: watch::Sender<()>,
    phase: watch::Sender<Phase>,
    events: mpsc::UnboundedSender<Event>,
}

impl Shared {
    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.states().get_mut(index) {
            change(state);
        }
        self.changed.send_replace(());
    }
}

/// All processes of a mesh.
pub struct Supervisor {
    shared: Arc<Shared>,
    tasks: Vec<(Role, JoinHandle<()>)>,
}

/// A process that was started and has yet to say that it serves.
pub struct Starting(oneshot::Receiver<Result<(), Error>>);

impl Starting {
    /// Waits until it serves.
    ///
    /// # Errors
    /// It died first, with the end of its log.
    pub async fn ready(self) -> Result<(), Error> {
        self.0.await.unwrap_or_else(|_| Err(Error::new("stopped while starting")))
    }
}

impl Supervisor {
    /// One without processes, and what happens to them.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let shared = Shared {
            states: Mutex::default(),
            changed: watch::Sender::new(()),
            phase: watch::Sender::new(Phase::Run),
            events,
        };
        (Self { shared: Arc::new(shared), tasks: Vec::new() }, receiver)
    }

    /// Starts a process and keeps it running from then on.
    pub fn start(&mut self, spec: Spec) -> Starting {
        let (sender, receiver) = oneshot::channel();
        let role = spec.role;
        let index = {
            let mut states = self.shared.states();
            states.push(State {
                name: spec.name.clone(),
                role,
                service: spec.service.clone(),
                version: spec.version.clone(),
                pid: None,
                addresses: Addresses::new(),
                deaths: 0,
            });
            states.len() - 1
        };
        let keeper = Keeper {
            spec,
            index,
            shared: self.shared.clone(),
            phase: self.shared.phase.subscribe(),
            first: Some(sender),
            backoff: FIRST_BACKOFF,
        };
        self.tasks.push((role, tokio::spawn(keeper.run())));
        Starting(receiver)
    }

    /// What is known of all processes, in the order they were started.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        self.shared.states().clone()
    }

    /// What is known of one.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<State> {
        self.shared.states().iter().find(|state| state.name == name).cloned()
    }

    /// Says when anything of [`Supervisor::states`] changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Sends a process SIGKILL, as a test of what then happens.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self, name: &str) -> Result<u32, Error> {
        let pid = self
            .state(name)
            .and_then(|state| state.pid)
            .ok_or_else(|| Error::new(format!("{name} does not run")))?;
        signal_group(pid, Signal::KILL);
        Ok(pid)
    }

    /// Ends all: first what carries requests, then the control plane, by
    /// SIGTERM; by SIGKILL what is left at `deadline`, or when `hurry` is done.
    pub async fn stop(&mut self, deadline: Duration, hurry: impl Future<Output = ()>) {
        let shared = self.shared.clone();
        let orderly = async {
            shared.phase.send_replace(Phase::StopData);
            for (_, task) in self.tasks.iter_mut().filter(|(role, _)| *role != Role::ControlPlane) {
                let _ = task.await;
            }
            shared.phase.send_replace(Phase::StopAll);
            for (_, task) in self.tasks.iter_mut().filter(|(role, _)| *role == Role::ControlPlane) {
                let _ = task.await;
            }
        };
        tokio::select! {
            () = orderly => {}
            () = tokio::time::sleep(deadline) => {}
            () = hurry => {}
        }
        shared.phase.send_replace(Phase::Kill);
        for (_, task) in &mut self.tasks {
            if !task.is_finished() {
                let _ = task.await;
            }
        }
    }
}

/// Looks after one process.
struct Keeper {
    spec: Spec,
    index: usize,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    first: Option<oneshot::Sender<Result<(), Error>>>,
    backoff: Duration,
}

enum End {
    Died(String),
    Stopped,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let began = Instant::now();
            let end = self.live().await;
            self.shared.update(self.index, |state| state.pid = None);
            let how = match end {
                End::Stopped => return,
                End::Died(how) => how,
            };
            if let Some(first) = self.first.take() {
                let _ = first.send(Err(self.died_at_start(&how)));
                return;
            }
            self.shared.update(self.index, |state| state.deaths += 1);
            let name = self.spec.name.clone();
            let _ = self.shared.events.send(Event::Died { name, how });
            if began.elapsed() >= STEADY {
                self.backoff = FIRST_BACKOFF;
            }
            tokio::select! {
                () = tokio::time::sleep(self.backoff) => {}
                () = stop_asked(&mut self.phase, self.spec.role) => return,
            }
            self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// One life of the process.
    async fn live(&mut self) -> End {
        let addresses = self.shared.states().get(self.index).map(|state| state.addresses.clone());
        let mut child = match spawn(&mut self.spec, &addresses.unwrap_or_default()) {
            Ok(child) => child,
            Err(error) => return End::Died(format!("cannot be started: {error}")),
        };
        let Some(pid) = child.id() else { return End::Died("was gone at once".into()) };
        let again = self.first.is_none();
        self.shared.update(self.index, |state| state.pid = Some(pid));
        let end = tokio::select! {
            status = child.wait() => End::Died(told(status)),
            () = stop_asked(&mut self.phase, self.spec.role) => End::Stopped,
            () = wait_ready(&self.spec) => End::Died("did not say that it serves in 30 s".into()),
            ready = becomes_ready(&self.spec) => {
                self.shared.update(self.index, |state| state.addresses.extend(ready));
                if let Some(first) = self.first.take() {
                    let _ = first.send(Ok(()));
                }
                if again {
                    let name = self.spec.name.clone();
                    let _ = self.shared.events.send(Event::Restarted { name, pid });
                }
                tokio::select! {
                    status = child.wait() => End::Died(told(status)),
                    () = stop_asked(&mut self.phase, self.spec.role) => End::Stopped,
                }
            }
        };
        if matches!(end, End::Stopped) {
            self.terminate(pid, &mut child).await;
        }
        // What the process started itself goes with it.
        signal_group(pid, Signal::KILL);
        let _ = child.wait().await;
        end
    }

    async fn terminate(&mut self, pid: u32, child: &mut Child) {
        signal_group(pid, Signal::TERM);
        tokio::select! {
            _ = child.wait() => {}
            _ = self.phase.wait_for(|phase| *phase >= Phase::Kill) => {}
        }
    }

    fn died_at_start(&self, how: &str) -> Error {
        Error::new(format!("{} did not start ({how}); its log ends with:", self.spec.name))
            .with(last_lines(&self.spec.log, 10))
    }
}

/// Done when a process of this role is to end.
async fn stop_asked(phase: &mut watch::Receiver<Phase>, role: Role) {
    let from = if role == Role::ControlPlane { Phase::StopAll } else { Phase::StopData };
    let _ = phase.wait_for(|phase| *phase >= from).await;
}

/// Done when the process says that it serves; at once for one that says nothing.
async fn becomes_ready(spec: &Spec) -> Addresses {
    let Some(path) = &spec.ready_file else { return Addresses::new() };
    loop {
        if let Some(addresses) = read_ready(path) {
            return addresses;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Done when a process that says that it serves has had time enough for it.
async fn wait_ready(spec: &Spec) {
    match spec.ready_file {
        Some(_) => tokio::time::sleep(READY_DEADLINE).await,
        None => std::future::pending().await,
    }
}

fn told(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

fn signal_group(pid: u32, signal: Signal) {
    if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, signal);
    }
}
