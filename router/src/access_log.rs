//! One JSON object for each request. Lines go through a queue to a thread of
//! their own: a slow disk costs lines (which are counted), never requests.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use weir_mesh::telemetry::metrics::Counter;
use weir_mesh::telemetry::trace::TraceId;

use crate::connection::Side;

const QUEUE: usize = 8192;
const FLUSH: Duration = Duration::from_millis(200);

/// Where lines go.
pub struct AccessLog(Option<(SyncSender<Vec<u8>>, Counter)>);

/// What is told of one request.
pub struct Line<'a> {
    /// Its arrival.
    pub time: SystemTime,
    /// Of its trace.
    pub trace_id: Option<TraceId>,
    /// By which listener it came.
    pub side: Side,
    /// Method.
    pub method: &'a str,
    /// Path without query, which may hold secrets.
    pub path: &'a str,
    /// Route and rule.
    pub route: Option<&'a str>,
    /// Where it went.
    pub service: &'a str,
    /// Version of it.
    pub version: &'a str,
    /// Instance of it.
    pub instance: Option<&'a str>,
    /// Who sent it.
    pub peer: &'a str,
    /// HTTP status.
    pub status: u16,
    /// gRPC status.
    pub grpc: Option<u8>,
    /// Until the answer's end.
    pub took: Duration,
    /// Of the answer's body.
    pub bytes: u64,
    /// Tries after the first.
    pub retries: u32,
    /// Response flags.
    pub flags: &'a [&'static str],
    /// Why the router answered itself.
    pub error: Option<&'a str>,
    /// What a policy in audit mode would have done.
    pub audit: Option<&'a str>,
}

#[derive(Serialize)]
struct Json<'a> {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    side: &'static str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    service: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    peer: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    duration_ms: f64,
    bytes: u64,
    retries: u32,
    flags: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<&'a str>,
}

impl AccessLog {
    /// Begins to write to `target`: a file that is appended to, `-` for
    /// standard output, or `off`.
    ///
    /// # Errors
    /// When the file cannot be opened; the message names it.
    pub fn open(target: &str, dropped: Counter) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match target {
            "off" => return Ok(Self(None)),
            "-" => Box::new(io::stdout()),
            path => {
                let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
                let named = |e: io::Error| io::Error::new(e.kind(), format!("{path}: {e}"));
                Box::new(file.map_err(named)?)
            }
        };
        let (sender, receiver) = sync_channel(QUEUE);
        thread::Builder::new().name("access-log".into()).spawn(move || drain(out, &receiver))?;
        Ok(Self(Some((sender, dropped))))
    }

    /// Whether anything is written at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Queues one line.
    pub fn write(&self, line: &Line<'_>) {
        if !self.is_on() {
            return;
        }
        self.write_json(&Json {
            time: rfc3339(line.time),
            trace_id: line.trace_id.map(|id| id.to_string()),
            side: line.side.as_str(),
            method: line.method,
            path: line.path,
            route: line.route,
            service: line.service,
            version: line.version,
            instance: line.instance,
            peer: line.peer,
            status: line.status,
            grpc_status: line.grpc,
            duration_ms: (line.took.as_secs_f64() * 1e6).round() / 1e3,
            bytes: line.bytes,
            retries: line.retries,
            flags: line.flags,
            error: line.error,
            audit: line.audit,
        });
    }

    /// Queues one line of another form.
    pub fn write_json(&self, line: &impl Serialize) {
        let Some((sender, dropped)) = &self.0 else { return };
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        if sender.try_send(text).is_err() {
            dropped.inc();
        }
    }
}

fn drain(out: Box<dyn Write + Send>, lines: &Receiver<Vec<u8>>) {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    let mut flushed = Instant::now();
    loop {
        match lines.recv_timeout(FLUSH) {
            // A full disk must not end the thread: later lines may fit.
            Ok(line) => drop(out.write_all(&line)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let _ = out.flush();
                return;
            }
        }
        if flushed.elapsed() >= FLUSH {
            let _ = out.flush();
            flushed = Instant::now();
        }
    }
}

/// UTC with milliseconds (RFC 3339 §5.6).
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Civil date from days (Hinnant, "chrono-compatible low-level date algorithms").
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        let at = |s| rfc3339(UNIX_EPOCH + Duration::from_millis(s));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(at(1_795_305_599_000), "2026-11-21T23:59:59.000Z");
    }
}
