//! From OpenTelemetry's names to Prometheus' (OpenTelemetry specification,
//! "Prometheus and OpenMetrics Compatibility").

use super::registry::Kind;

/// `http.server.request.duration` in `s` -> `http_server_request_duration_seconds`.
pub(super) fn metric_name(name: &str, unit: &str, kind: Kind) -> String {
    let mut out = sanitize(name, ':');
    let suffix = unit_suffix(unit, kind);
    if !suffix.is_empty() {
        append(&mut out, suffix);
    }
    if kind == Kind::Counter {
        append(&mut out, "total");
    }
    out
}

/// `service.name` -> `service_name`
pub(super) fn label_name(name: &str) -> String {
    sanitize(name, '_')
}

fn append(name: &mut String, suffix: &str) {
    if name.rsplit('_').next().is_none_or(|last| last != suffix) {
        name.push('_');
        name.push_str(suffix);
    }
}

/// UCUM to words; annotations such as `{request}` say nothing.
fn unit_suffix(unit: &str, kind: Kind) -> &str {
    match unit {
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "min" => "minutes",
        "h" => "hours",
        "d" => "days",
        "By" => "bytes",
        "%" => "percent",
        "1" if kind == Kind::Gauge => "ratio",
        "1" => "",
        annotation if annotation.starts_with('{') => "",
        other => other,
    }
}

fn sanitize(name: &str, also: char) -> String {
    let mut out = String::with_capacity(name.len() + 16);
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() || c == also { c } else { '_' };
        // Runs of replaced characters become one.
        if c != '_' || !out.ends_with('_') {
            out.push(c);
        }
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}
