//! Memory that is given back while nothing happens. A sidecar is idle most of
//! its life, and every pod pays for it.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::worker::Worker;

/// How often a worker looks whether it is idle.
const LOOK: Duration = Duration::from_secs(2);
/// Giving back costs page faults afterwards: not more often than this.
const SPACING: Duration = Duration::from_secs(5);

/// Counts what a worker does, so that its idleness can be seen.
#[derive(Debug, Default)]
pub struct Activity(Cell<u64>);

impl Activity {
    /// A request or a connection came or went.
    pub fn note(&self) {
        self.0.set(self.0.get().wrapping_add(1));
    }
}

/// Gives memory back each time that the worker has become idle. For ever; must
/// run on the worker's own thread, for the allocator's heaps are each thread's.
pub async fn keep_small(worker: Rc<Worker>) {
    let mut seen = worker.activity.0.get();
    let mut idle = 0_u32;
    let mut last: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = worker.activity.0.get();
        idle = if now == seen { idle.saturating_add(1) } else { 0 };
        seen = now;
        // Refusing is no idleness, but what was freed has to go back for it to end.
        if worker.shared.shed.is_on() {
            release(&worker.shared.pages);
        }
        if idle == 5 {
            worker.close_spare();
        }
        // Once soon, and once when all that follows a burst is done (reports,
        // health checks, other workers).
        if matches!(idle, 1 | 6) && last.is_none_or(|at| at.elapsed() >= SPACING) {
            release(&worker.shared.pages);
            last = Some(Instant::now());
        }
    }
}

/// Read-only pages of program and libraries.
#[derive(Debug, Default)]
pub struct Pages(Vec<(usize, usize)>);

impl Pages {
    /// Those that are mapped now. For the beginning of a program: what is mapped
    /// then stays mapped to its end, which [`release`] relies on.
    #[must_use]
    pub fn at_start() -> Self {
        Self(fs::read_to_string("/proc/self/smaps").map(|smaps| clean(&smaps)).unwrap_or_default())
    }
}

/// Returns free blocks of this thread's heap to the system, and drops mapped
/// pages of program and libraries that were needed once, at the start: the
/// kernel maps 64 KiB around each byte of code that is used (`fault-around`).
fn release(pages: &Pages) {
    #[expect(unsafe_code, reason = "mimalloc has no safe interface")]
    // SAFETY: `mi_collect` may be called by any thread at any time; it touches
    // only free blocks. With another allocator in use it finds none.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
    for (start, length) in &pages.0 {
        #[expect(unsafe_code, reason = "madvise by address")]
        // SAFETY: MADV_DONTNEED on a private mapping of a file loses what was
        // written to it and keeps what is in the file (madvise(2)). `clean`
        // names only mappings of files without write permission that have no
        // page of their own (`Anonymous: 0 kB`): nothing was written to them, and
        // the loader, the only one who lifts the write protection (RELRO), was
        // done with them before `main`. The next read brings the same bytes back.
        // The addresses still are these mappings: they were read before there was
        // another thread, and program and libraries of the start are never
        // unloaded; what is mapped later (NSS modules, say) is not among them.
        let _ = unsafe {
            rustix::mm::madvise(
                std::ptr::without_provenance_mut(*start),
                *length,
                rustix::mm::Advice::LinuxDontNeed,
            )
        };
    }
}

/// Address and length of each read-only private mapping of a file that nothing
/// was written to, in `/proc/self/smaps` (proc_pid_smaps(5)).
fn clean(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(mapping) = mapping(line) {
            current = Some(mapping).filter(|(_, _, of_file)| *of_file);
        } else if let Some(rest) = line.strip_prefix("Anonymous:")
            && let Some((start, end, _)) = current.take()
            && rest.trim() == "0 kB"
        {
            found.push((start, end - start));
        }
    }
    found
}

/// `start-end r-xp offset device inode   /path`: the addresses, and whether it
/// is a file's that cannot be written to.
fn mapping(line: &str) -> Option<(usize, usize, bool)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let access = words.next()?;
    let path = words.nth(3).unwrap_or_default();
    let kept = matches!(access, "r-xp" | "r--p") && path.starts_with('/') && end > start;
    Some((start, end, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55a5adf7c000-55a5ae123000 r--p 00000000 fe:00 1234                       /bin/weir-router
Rss:                1168 kB
Anonymous:             0 kB
55a5ae123000-55a5ae745000 r-xp 001a7000 fe:00 1234                       /bin/weir-router
Anonymous:             0 kB
55a5ae745000-55a5ae777000 r--p 007c9000 fe:00 1234                       /bin/weir-router
Anonymous:           200 kB
55a5ae777000-55a5ae77d000 rw-p 007fb000 fe:00 1234                       /bin/weir-router
Anonymous:             0 kB
7ffd1c9e2000-7ffd1c9e4000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
7ffd1c9e5000-7ffd1c9e6000 r--p 00000000 00:00 0
Anonymous:             0 kB
";

    #[test]
    fn only_files_pages_that_nobody_wrote_to_are_given_back() {
        assert_eq!(
            clean(SMAPS),
            [(0x55a5adf7c000, 0x1a7000), (0x55a5ae123000, 0x622000)],
            "code and constants; not relocated data, not writable pages, nothing without a file"
        );
    }

    #[test]
    fn a_process_goes_on_after_giving_back() {
        let text: Vec<String> = (0..1000).map(|n| format!("{n:08}")).collect();
        release(&Pages::at_start());
        assert!(text.iter().enumerate().all(|(n, text)| text.parse() == Ok(n)));
    }
}
