//! Tables for people, JSON for programs.

use std::io::{self, Write as _};
use std::sync::OnceLock;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use prost_reflect::{DescriptorPool, DynamicMessage};

use crate::Error;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns, for reading
    Table,
    /// The API's answer as the protobuf JSON mapping has it; of routes and
    /// policies, their documents
    Json,
    /// The same as YAML
    Yaml,
}

/// A table without lines, as other tools of the trade print it.
#[must_use]
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Prints a table, without blanks at the ends of its lines.
///
/// # Errors
/// Standard output is gone.
pub fn print_table(table: &Table) -> Result<(), Error> {
    let text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    print(&text)
}

/// Prints text as it is.
///
/// # Errors
/// Standard output is gone.
pub fn print(text: &str) -> Result<(), Error> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(()),
        // `weir traces | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Error::new(format!("cannot write to standard output: {error}"))),
    }
}

/// Prints a line while something runs that must go on though nobody reads it.
pub fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// Prints a message of `weir.control.v1` or `weir.mesh.v1` as data: JSON, unless
/// YAML was asked for.
///
/// # Errors
/// Standard output is gone.
pub fn print_message<M: prost::Message>(
    format: Format,
    name: &str,
    message: &M,
) -> Result<(), Error> {
    if format == Format::Yaml {
        return print_value(format, &to_value(name, message)?);
    }
    let mut json = Vec::with_capacity(1024);
    write_json(name, message, &mut serde_json::Serializer::pretty(&mut json))?;
    print(&format!("{}\n", String::from_utf8_lossy(&json)))
}

/// Prints a value as data: JSON, unless YAML was asked for.
///
/// # Errors
/// Standard output is gone.
pub fn print_value(format: Format, value: &serde_json::Value) -> Result<(), Error> {
    match format {
        Format::Yaml => print(&yaml(value)?),
        Format::Json | Format::Table => print(&format!("{value:#}\n")),
    }
}

/// A value as YAML that reads as the same value again, whatever the reader
/// thinks of `yes` and `on`. Ends with a line break.
///
/// # Errors
/// None that is known: what JSON can say, YAML can.
pub fn yaml(value: &serde_json::Value) -> Result<String, Error> {
    let text = serde_saphyr::to_string_with_options(
        value,
        serde_saphyr::ser_options! { prefer_block_scalars: false },
    );
    let mut text = text.map_err(|error| Error::new(format!("cannot write YAML: {error}")))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Whether to colour what goes to standard output (<https://no-color.org>).
#[must_use]
pub fn colours() -> bool {
    use std::io::IsTerminal as _;
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The protobuf JSON mapping of a message, as the API itself writes it.
///
/// # Errors
/// `name` is not that of the message.
pub fn to_value<M: prost::Message>(name: &str, message: &M) -> Result<serde_json::Value, Error> {
    write_json(name, message, serde_json::value::Serializer)
}

/// Never by way of compact text: read again, numbers may lose their last digit.
fn write_json<M: prost::Message, S: serde::Serializer>(
    name: &str,
    message: &M,
    to: S,
) -> Result<S::Ok, Error> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let broken = |what: &str| Error::new(format!("cannot write {name} as JSON: {what}"));
    let descriptor = POOL
        .get_or_init(|| DescriptorPool::decode(weir_proto::descriptors::CONTROL).ok())
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(name))
        .ok_or_else(|| broken("its descriptor is missing"))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|error| broken(&error.to_string()))?;
    let options = weir_mesh::transcode::json_options();
    dynamic.serialize_with_options(to, &options).map_err(|error| broken(&error.to_string()))
}

/// A duration in the largest unit that keeps it readable: `52m`, `3.2s`, `41ms`.
#[must_use]
pub fn seconds(value: f64) -> String {
    match value {
        v if v >= 86_400.0 => format!("{:.0}d", v / 86_400.0),
        v if v >= 7_200.0 => format!("{:.0}h", v / 3_600.0),
        v if v >= 120.0 => format!("{:.0}m", v / 60.0),
        v if v >= 1.0 => format!("{v:.1}s"),
        v if v >= 0.001 => format!("{:.1}ms", v * 1e3),
        v if v > 0.0 => format!("{:.0}us", v * 1e6),
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::weir::control::v1::{ChangeResponse, Converged};

    #[test]
    fn json_has_the_names_of_the_api() {
        let change = ChangeResponse {
            revision: 7,
            converged: Some(Converged {
                routers: 9,
                applied: 9,
                slowest_ms: 12,
                pending: Vec::new(),
            }),
            unchanged: false,
            ..Default::default()
        };
        let value = to_value("weir.control.v1.ChangeResponse", &change).unwrap();
        let want = serde_json::json!({
            "revision": 7,
            "converged": {"routers": 9, "applied": 9, "slowestMs": 12, "pending": []},
            "unchanged": false,
            "warnings": [],
            "changes": [],
            "replayed": false,
        });
        assert_eq!(value, want);
    }

    #[test]
    fn durations_are_readable() {
        let all = [0.0, 0.000_25, 0.0412, 3.21, 3_120.0, 7_200.0, 200_000.0].map(seconds);
        assert_eq!(all, ["0", "250us", "41.2ms", "3.2s", "52m", "2h", "2d"]);
    }
}
