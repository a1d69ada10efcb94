//! What processes have used, by the operating system's accounting.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

/// Ticks a second of the times in `/proc/PID/stat`: `USER_HZ`, which is 100 on
/// every architecture that Weir runs on.
const TICKS: f64 = 100.0;

/// What a process used between two samples.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Usage {
    /// User and system together, to the nanosecond where the kernel says so
    /// (`schedstat`).
    pub cpu_seconds: f64,
    /// Its part in user mode. The kernel tells the two apart by 10 ms; they are
    /// scaled so that they add up to `cpu_seconds`.
    pub user_seconds: f64,
    /// Its part in the kernel.
    pub system_seconds: f64,
    /// Times that a thread gave up its core to wait.
    pub voluntary_switches: u64,
    /// Times that a thread lost its core.
    pub involuntary_switches: u64,
}

/// One process at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Nanoseconds of each live thread.
    threads: BTreeMap<u32, u64>,
    /// Of all threads, ended ones too.
    user_ticks: u64,
    system_ticks: u64,
    voluntary: u64,
    involuntary: u64,
}

impl Sample {
    /// Before a process has begun.
    pub fn zero() -> Self {
        let threads = BTreeMap::new();
        Self { threads, user_ticks: 0, system_ticks: 0, voluntary: 0, involuntary: 0 }
    }

    /// Looks at one process.
    ///
    /// # Errors
    /// When there is no such process, or its files are not to be read.
    pub fn take(pid: u32) -> io::Result<Self> {
        let root = Path::new("/proc").join(pid.to_string());
        let name_pid = |e: io::Error| io::Error::new(e.kind(), format!("--pid-cpu {pid}: {e}"));
        Self::read(&root).map_err(name_pid)
    }

    fn read(root: &Path) -> io::Result<Self> {
        let (user_ticks, system_ticks) = ticks(&fs::read_to_string(root.join("stat"))?)
            .ok_or_else(|| io::Error::other("stat has another form than proc(5) says"))?;
        let mut sample = Self {
            threads: BTreeMap::new(),
            user_ticks,
            system_ticks,
            voluntary: 0,
            involuntary: 0,
        };
        for thread in fs::read_dir(root.join("task"))? {
            let thread = thread?;
            // One that ends meanwhile is no error.
            let read = |file| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            let Ok(id) = thread.file_name().to_string_lossy().parse() else { continue };
            if let Some(ran) = read("schedstat").split(' ').next().and_then(|ran| ran.parse().ok())
            {
                sample.threads.insert(id, ran);
            }
            let status = read("status");
            sample.voluntary += line(&status, "voluntary_ctxt_switches:");
            sample.involuntary += line(&status, "nonvoluntary_ctxt_switches:");
        }
        Ok(sample)
    }

    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Usage {
        let seconds = |now: u64, then: u64| now.saturating_sub(then) as f64 / TICKS;
        let user = seconds(self.user_ticks, earlier.user_ticks);
        let system = seconds(self.system_ticks, earlier.system_ticks);
        // Of a thread that ended, only the coarse figure still knows.
        let all_live = earlier.threads.keys().all(|id| self.threads.contains_key(id));
        let cpu_seconds = if all_live && !self.threads.is_empty() {
            let ran = |(id, now): (&u32, &u64)| {
                now.saturating_sub(earlier.threads.get(id).copied().unwrap_or(0))
            };
            self.threads.iter().map(ran).sum::<u64>() as f64 / 1e9
        } else {
            user + system
        };
        let user_part = if user + system > 0.0 { user / (user + system) } else { 0.5 };
        Usage {
            cpu_seconds,
            user_seconds: cpu_seconds * user_part,
            system_seconds: cpu_seconds * (1.0 - user_part),
            voluntary_switches: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary_switches: self.involuntary.saturating_sub(earlier.involuntary),
        }
    }
}

/// `utime` and `stime`: fields 14 and 15. The name before them, in
/// parentheses, may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn line(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_is_passed_over() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 777 888 0 0 20";
        assert_eq!(ticks(stat), Some((777, 888)));
        assert_eq!(ticks("12 nothing"), None);
    }

    #[test]
    fn our_own_work_is_seen() {
        let pid = std::process::id();
        let before = Sample::take(pid).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            for i in 0..1_000_000_u64 {
                black_box(i);
            }
            let usage = Sample::take(pid).unwrap().since(&before);
            let parts = usage.user_seconds + usage.system_seconds;
            assert!((parts - usage.cpu_seconds).abs() < 1e-9, "{usage:?}");
            if usage.cpu_seconds > 0.02 {
                break;
            }
            assert!(Instant::now() < deadline, "{usage:?}");
        }
    }

    #[test]
    fn a_missing_process_is_named() {
        let error = Sample::take(u32::MAX).unwrap_err();
        assert!(error.to_string().contains("--pid-cpu 4294967295"), "{error}");
    }
}
