//! Logs: one JSON object a line, on standard error.

use std::io;
use std::str::FromStr as _;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;

/// What is logged when nobody says.
pub const DEFAULT_LEVEL: &str = "info";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a filter.
    #[error(
        "log level {0:?} is none of off, error, warn, info, debug and trace, \
         nor a list such as \"info,weir_router=debug\""
    )]
    Level(String),
    /// Called twice.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Sets up logging for the process: JSON lines on standard error, of `level`
/// and above. `level` is one of `off`, `error`, `warn`, `info`, `debug`,
/// `trace`, or a list of those for targets: `info,weir_router=debug`.
///
/// # Errors
/// When `level` cannot be read, or logging is set up already.
pub fn init(level: &str) -> Result<(), LogError> {
    let filter = parse(level)?;
    tracing::subscriber::set_global_default(subscriber(filter, io::stderr))
        .map_err(|_| LogError::AlreadySet)
}

fn parse(level: &str) -> Result<Targets, LogError> {
    let wrong = || LogError::Level(level.chars().take(120).collect());
    // `Targets` would take an unknown level for the name of a target.
    let is_level = |part: &str| part.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let mut parts = level.split(',').map(str::trim);
    if !parts.all(|part| !part.is_empty() && (is_level(part) || part.contains('='))) {
        return Err(wrong());
    }
    Targets::from_str(level).map_err(|_| wrong())
}

fn subscriber<W>(filter: Targets, writer: W) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(writer);
    registry().with(lines.with_filter(filter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(parse(level).unwrap(), move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn writes_one_object_a_line_of_the_level_asked_for() {
        let text = logged("info", || {
            tracing::info!(revision = 7, "applied \"whole\"\nand at once");
            tracing::debug!("not this");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with('{') && text.ends_with("}\n"), "{text}");
        for part in [r#""level":"INFO""#, r#""revision":7"#, r#""whole\"\nand"#, r#""timestamp":""#]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn targets_have_levels_of_their_own() {
        let text = logged("warn,loud=trace", || {
            tracing::info!("quiet");
            tracing::trace!(target: "loud", "heard");
        });
        assert!(text.contains("heard") && !text.contains("quiet"), "{text}");
    }

    #[test]
    fn a_wrong_level_is_named() {
        for wrong in ["", "loud", "weir=loud", "info,loud"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
