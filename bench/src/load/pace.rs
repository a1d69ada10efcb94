//! When requests are sent.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Semaphore;

/// The clock of an open loop ticks no faster. Arrivals closer together are
/// sent in twos or more, and still counted from when they were due.
const FASTEST_TICK: Duration = Duration::from_micros(20);

/// Gives each worker the time from which its next request counts.
pub struct Pace {
    /// Arrivals a second of an open loop.
    rate: Option<f64>,
    /// When an open loop began.
    start: OnceLock<Instant>,
    /// Arrivals that are due and not taken.
    due: Semaphore,
    /// Arrivals (open) or requests (closed) so far.
    taken: AtomicU64,
    /// The most requests.
    limit: u64,
    stopped: AtomicBool,
}

impl Pace {
    /// A closed loop without `rate`; at most `limit` requests.
    pub fn new(rate: Option<f64>, limit: Option<u64>) -> Self {
        Self {
            rate,
            start: OnceLock::new(),
            due: Semaphore::new(0),
            taken: AtomicU64::new(0),
            limit: limit.unwrap_or(u64::MAX),
            stopped: AtomicBool::new(false),
        }
    }

    /// The time from which the next request counts: when it was due in an open
    /// loop, `now` in a closed one. Nothing when no more are to be sent.
    pub async fn next(&self, now: Instant) -> Option<Instant> {
        let Some(rate) = self.rate else {
            let may = !self.stopped.load(Relaxed) && self.taken.fetch_add(1, Relaxed) < self.limit;
            return may.then_some(now);
        };
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.fetch_add(1, Relaxed);
        (number < self.limit).then(|| self.time_of(number, rate))?
    }

    fn time_of(&self, number: u64, rate: f64) -> Option<Instant> {
        Some(*self.start.get()? + Duration::from_secs_f64(number as f64 / rate))
    }

    /// No more requests.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.due.close();
    }

    /// For each arrival of an open loop that was due by `end` and that nobody
    /// was free to take: when it was due.
    pub fn waiting(&self, end: Instant) -> Vec<Instant> {
        let Some(rate) = self.rate else { return Vec::new() };
        let first = self.taken.load(Relaxed);
        (first..self.limit)
            .map_while(|number| self.time_of(number, rate).filter(|time| *time < end))
            .collect()
    }

    /// Keeps the clock of an open loop, until [`Pace::stop`].
    ///
    /// # Errors
    /// When the system gives no timer.
    pub async fn drive(&self) -> io::Result<()> {
        let Some(rate) = self.rate else { return Ok(()) };
        let tick = Duration::from_secs_f64(1.0 / rate).max(FASTEST_TICK);
        let spec = |time: Duration| Timespec {
            // Far below their limits.
            tv_sec: time.as_secs() as _,
            tv_nsec: time.subsec_nanos() as _,
        };
        // The runtime's own timers know milliseconds only. That of the system is
        // read like a pipe.
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let times = Itimerspec { it_interval: spec(tick), it_value: spec(tick) };
        let start = *self.start.get_or_init(Instant::now);
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        let mut timer = Receiver::from_owned_fd_unchecked(timer)?;
        let mut released = 0;
        while !self.due.is_closed() {
            let due = (start.elapsed().as_secs_f64() * rate) as u64 + 1;
            // A worker that comes for its permit waits for no clock.
            self.due.add_permits(usize::try_from(due - released).unwrap_or(0));
            released = due;
            // It gives 8 bytes; a read that is not filled tells the runtime that
            // there is no more, and saves the next one.
            let count = timer.read(&mut [0; 16]).await?;
            debug_assert_eq!(count, 8);
        }
        Ok(())
    }
}
