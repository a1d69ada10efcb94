//! Processes by id.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

/// Whether it runs. One that has ended but was not waited for does not.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name, in parentheses, may hold anything; the state comes after it.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// Sends a signal.
///
/// # Panics
/// When there is no such process.
#[track_caller]
pub fn send(pid: u32, signal: Signal) {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(id, signal).unwrap_or_else(|error| panic!("signal to {pid}: {error}"));
}

/// Waits until none of these run.
///
/// # Panics
/// When some still do after `deadline`.
#[track_caller]
pub fn all_gone(pids: &[u32], deadline: Duration) {
    let began = Instant::now();
    loop {
        let left: Vec<_> = pids.iter().copied().filter(|pid| is_alive(*pid)).collect();
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < deadline, "still running: {}", describe(&left));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The command lines of processes, for messages.
fn describe(pids: &[u32]) -> String {
    let lines = pids.iter().map(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!("{pid} {}", String::from_utf8_lossy(&command).replace('\0', " "))
    });
    lines.collect::<Vec<_>>().join("; ")
}
