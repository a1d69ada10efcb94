//! The ready file: how a process tells whoever started it what it bound.

use std::io;
use std::path::Path;

/// Writes one JSON object to `path`, atomically: whoever waits for the file
/// never reads half of it.
///
/// Call it once every listener is bound and served.
///
/// # Errors
/// What the file system answers; the message names the path.
pub fn write(path: impl AsRef<Path>, json: &str) -> io::Result<()> {
    crate::file::write_atomic(path, format!("{}\n", json.trim_end()))
}
