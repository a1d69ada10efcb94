//! How long a proxy takes from its start to its first good answer.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::time::timeout;

use crate::load::plan::RequestOptions;
use crate::load::{Kind, Run, http1, http2};

/// Between attempts.
const PAUSE: Duration = Duration::from_micros(50);
/// A process that is told to end has so long.
const GRACE: Duration = Duration::from_secs(1);

/// What `weir-bench first-byte` can be told.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    request: RequestOptions,
    /// The longest to wait for an answer
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    deadline_ms: u64,
    /// What to start; it is stopped again
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// What is printed.
#[derive(Serialize)]
pub struct Report {
    milliseconds: f64,
    attempts: u64,
}

/// Ends what was started, whatever happens.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let deadline = Instant::now() + GRACE;
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the command, and asks until it answers.
///
/// # Errors
/// When it cannot be started, ends, or gives no good answer in time; the last
/// failure is named.
pub async fn run(options: Options) -> Result<Report, String> {
    let is_http1 = options.request.is_http1();
    let run = Run::single(options.request)?;
    let script = http1::Script::new(&run.plan);
    let Some((program, arguments)) = options.command.split_first() else {
        return Err("CMD: name a program after --".into());
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut started = Started(command.spawn().map_err(|e| format!("{program}: {e}"))?);
    let deadline = Duration::from_millis(options.deadline_ms);
    let mut attempts = 0;
    let mut last = Kind::from("nothing was tried");
    while let Some(left) = deadline.checked_sub(start.elapsed()) {
        attempts += 1;
        let attempt = async {
            if is_http1 {
                http1::exchange(&run, &script, &mut None).await
            } else {
                http2::exchange(&run, &http2::Link::default(), &mut None).await
            }
        };
        match timeout(left, attempt).await {
            Ok(Ok(_)) => {
                let milliseconds = start.elapsed().as_secs_f64() * 1e3;
                return Ok(Report { milliseconds, attempts });
            }
            Ok(Err(kind)) => last = kind,
            Err(_) => break,
        }
        // The runtime's own timers know milliseconds only, and nothing else is
        // to run meanwhile.
        thread::sleep(PAUSE);
        if attempts % 100 == 0
            && let Ok(Some(status)) = started.0.try_wait()
        {
            return Err(format!("{program} ended: {status}"));
        }
    }
    Err(format!("no good answer within {deadline:?}; the last of {attempts} attempts: {last}"))
}
