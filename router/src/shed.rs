//! Refusing requests before memory runs out: an answer 503 now is better than
//! the kernel's end of all requests.

use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::worker::Shared;

/// Percent of the limit from which requests are refused.
const ON: u64 = 90;
/// Percent of the limit below which they are taken again.
const OFF: u64 = 80;
/// Between two looks, while less than half of the limit is in use.
const CALM: Duration = Duration::from_secs(1);
/// Between two looks otherwise.
const TENSE: Duration = Duration::from_millis(100);

/// Bytes, as Kubernetes writes them: `67108864`, `64Mi`, `1Gi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit: Option<u64> = match unit {
            "" => Some(1),
            "Ki" => Some(1 << 10),
            "Mi" => Some(1 << 20),
            "Gi" => Some(1 << 30),
            _ => None,
        };
        let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
        match bytes {
            Some(bytes) if bytes > 0 => Ok(Self(bytes)),
            _ => Err(format!("{text:?} is no number of bytes such as 67108864, 64Mi or 1Gi")),
        }
    }
}

/// Whether requests are refused for want of memory.
#[derive(Debug, Default)]
pub struct Shed(AtomicBool);

impl Shed {
    /// See [`Shed`].
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Looks at what is in use. True when this changes something.
    fn look(&self, used: u64, limit: u64) -> bool {
        let before = self.is_on();
        let percent = used.saturating_mul(100) / limit.max(1);
        let now = if before { percent >= OFF } else { percent >= ON };
        self.0.store(now, Relaxed);
        before != now
    }
}

/// Watches over memory, if there is a limit: the command line's, else that of
/// the control group. For ever.
pub async fn watch(shared: Arc<Shared>) {
    let given = shared.config.args.memory_limit.map(|bytes| bytes.0);
    let Some(limit) = given.or_else(|| cgroup_limit(Path::new("/"))) else { return };
    let help = "1 while requests are refused for want of memory.";
    let gauge = shared.metrics.registry().gauge("weir.router.shedding", help, "", &[]);
    loop {
        let Some(used) = resident() else { return };
        if shared.shed.look(used, limit) {
            let on = shared.shed.is_on();
            gauge.set(i64::from(on));
            match on {
                true => tracing::warn!(used, limit, "requests are refused: memory runs out"),
                false => tracing::info!(used, limit, "requests are taken again"),
            }
        }
        let tense = used > limit / 2;
        tokio::time::sleep(if tense { TENSE } else { CALM }).await;
    }
}

/// Bytes of memory that this process has (proc(5), `statm`).
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The limit of this process's control group, version 2 or 1.
fn cgroup_limit(root: &Path) -> Option<u64> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let base = root.join("sys/fs/cgroup");
    let files = [
        base.join(own).join("memory.max"),
        base.join("memory.max"),
        base.join("memory/memory.limit_in_bytes"),
    ];
    let read = |file: &std::path::PathBuf| fs::read_to_string(file).ok();
    let text = files.iter().find_map(read)?;
    // Version 1 says "none" by a number that no machine has.
    text.trim().parse().ok().filter(|limit| *limit < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_late_and_ends_later() {
        let shed = Shed::default();
        let on = |used| {
            shed.look(used, 1000);
            shed.is_on()
        };
        assert_eq!(
            [on(500), on(899), on(900), on(850), on(799), on(899)],
            [false, false, true, true, false, false]
        );
    }

    #[test]
    fn bytes_are_kubernetes_own() {
        assert_eq!("64Mi".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("100".parse(), Ok(Bytes(100)));
        for wrong in ["", "Mi", "0", "1.5Gi", "1GB", "99999999999Gi"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_of_control_groups() {
        let root = std::env::temp_dir().join(format!("weir-cgroup-{}", fastrand::u64(..)));
        let put = |file: &str, text: &str| {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        assert_eq!(cgroup_limit(&root), None);
        put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(cgroup_limit(&root), None);
        put("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(cgroup_limit(&root), None);
        put("proc/self/cgroup", "0::/pod/router\n");
        put("sys/fs/cgroup/pod/router/memory.max", "67108864\n");
        assert_eq!(cgroup_limit(&root), Some(64 << 20));
        fs::remove_dir_all(&root).unwrap();
        assert!(resident().unwrap() > 1 << 20);
    }
}
