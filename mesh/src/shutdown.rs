//! Stopping in order: first hear of it, then finish what runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// Whether the process was asked to stop. Clones hear the same request.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<watch::Sender<bool>>);

impl Shutdown {
    /// One that only [`Shutdown::request`] sets off.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// One that SIGTERM and SIGINT set off (Ctrl-C where there are no
    /// signals), listening on the current tokio runtime.
    ///
    /// # Errors
    /// When the system refuses a signal handler.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let asked = shutdown.clone();
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::spawn(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                asked.request();
            });
        }
        #[cfg(not(unix))]
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                asked.request();
            }
        });
        Ok(shutdown)
    }

    /// Asks everything that listens to stop. Once is enough; there is no way
    /// back.
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is asked for; at once when it already was.
    pub async fn requested(&self) {
        // It fails only when the sender is gone, and that is `self`.
        let _ = self.0.subscribe().wait_for(|requested| *requested).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts what still runs: requests, connections. Clones count together.
///
/// Taking and giving back a guard is one atomic operation each.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    running: AtomicUsize,
    /// Someone waits: before that, a guard need not look for whom to wake.
    waited_for: AtomicBool,
    idle: Notify,
}

/// Something that runs, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct DrainGuard(Arc<Inner>);

impl Drain {
    /// Nothing runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more runs.
    pub fn guard(&self) -> DrainGuard {
        self.0.running.fetch_add(1, SeqCst);
        DrainGuard(self.0.clone())
    }

    /// How many run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.running.load(SeqCst)
    }

    /// Waits until nothing runs, for `limit` at most. Answers how many still
    /// run.
    pub async fn wait(&self, limit: Duration) -> usize {
        self.0.waited_for.store(true, SeqCst);
        let idle = async {
            loop {
                let mut woken = std::pin::pin!(self.0.idle.notified());
                // Registered before it looks: else the last guard could go between.
                woken.as_mut().enable();
                if self.running() == 0 {
                    return;
                }
                woken.await;
            }
        };
        let _ = timeout(limit, idle).await;
        self.running()
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, SeqCst) == 1 && self.0.waited_for.load(SeqCst) {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_reaches_all_clones_also_late_ones() {
        let shutdown = Shutdown::new();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        assert!(!shutdown.is_requested());
        shutdown.request();
        waiting.await.unwrap();
        shutdown.clone().requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_the_last_guard() {
        let drain = Drain::new();
        let (first, second) = (drain.guard(), drain.guard());
        let wait = tokio::spawn({
            let drain = drain.clone();
            async move { drain.wait(Duration::from_secs(3600)).await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!wait.is_finished());
        drop(second);
        assert_eq!(wait.await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn drain_gives_up_at_its_limit_and_says_what_is_left() {
        let drain = Drain::new();
        let _stuck = drain.guard();
        assert_eq!(drain.wait(Duration::from_secs(5)).await, 1);
    }

    #[cfg(unix)]
    #[test]
    fn hears_sigterm() {
        // In a child process, since a signal is for the whole of one.
        const CHILD: &str = "WEIR_TEST_SHUTDOWN_CHILD";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        if std::env::var_os(CHILD).is_some() {
            runtime.block_on(async {
                let shutdown = Shutdown::on_signals().unwrap();
                println!("listening");
                shutdown.requested().await;
            });
            println!("drained");
            return;
        }
        use std::io::{BufRead as _, BufReader};
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shutdown::tests::hears_sigterm", "--nocapture"])
            .env(CHILD, "1")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().any(|line| line.unwrap().contains("listening")));
        let status = std::process::Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        assert!(lines.any(|line| line.unwrap().contains("drained")));
        assert!(child.wait().unwrap().success());
    }
}
