//! A trace drawn as a tree: who called whom, when, for how long.

use std::collections::HashSet;
use std::fmt::Write as _;

use weir_proto::weir::control::v1::{Trace, TraceSpan};

/// Characters that the whole trace's duration takes.
const BAR: usize = 30;

/// Draws a trace, one line for each span. Spans whose parent is not there stand
/// at the left, as roots.
#[must_use]
pub fn draw(trace: &Trace) -> String {
    let end = |span: &TraceSpan| span.start_ms + span.duration_ms;
    let total = trace.spans.iter().map(end).fold(0.0, f64::max);
    let mut lines = Vec::new();
    for root in roots(trace) {
        walk(trace, root, &mut Indent::default(), &mut lines);
    }
    let width = lines.iter().map(|line| line.label.chars().count()).max().unwrap_or(0);

    let mut out =
        format!("trace {}  {} spans  {total:.1} ms\n\n", trace.trace_id, trace.spans.len());
    for Line { label, span } in lines {
        let _ = writeln!(
            out,
            "{label:width$}  {:>7.1} {:>7.1} ms  |{}|{}",
            span.start_ms,
            span.duration_ms,
            bar(span, total),
            if span.error { " error" } else { "" },
        );
    }
    out
}

struct Line<'a> {
    label: String,
    span: &'a TraceSpan,
}

/// Which of the ancestors have more children to come.
#[derive(Default)]
struct Indent(Vec<bool>);

fn roots(trace: &Trace) -> Vec<&TraceSpan> {
    let ids: HashSet<&str> = trace.spans.iter().map(|span| span.span_id.as_str()).collect();
    sorted(trace.spans.iter().filter(|span| !ids.contains(span.parent_span_id.as_str())))
}

fn children<'a>(trace: &'a Trace, parent: &TraceSpan) -> Vec<&'a TraceSpan> {
    sorted(trace.spans.iter().filter(|span| span.parent_span_id == parent.span_id))
}

fn sorted<'a>(spans: impl Iterator<Item = &'a TraceSpan>) -> Vec<&'a TraceSpan> {
    let mut spans: Vec<_> = spans.collect();
    spans.sort_by(|a, b| a.start_ms.total_cmp(&b.start_ms));
    spans
}

fn walk<'a>(trace: &'a Trace, span: &'a TraceSpan, indent: &mut Indent, lines: &mut Vec<Line<'a>>) {
    // Each line is one span and each span is one line: more would be a cycle.
    if lines.len() >= trace.spans.len() {
        return;
    }
    lines.push(Line { label: format!("{}{}", prefix(indent), label(span)), span });
    let children = children(trace, span);
    for (i, child) in children.iter().enumerate() {
        indent.0.push(i + 1 < children.len());
        walk(trace, child, indent, lines);
        indent.0.pop();
    }
}

fn prefix(indent: &Indent) -> String {
    let Some((last, above)) = indent.0.split_last() else { return String::new() };
    let mut text: String = above.iter().map(|more| if *more { "│  " } else { "   " }).collect();
    text.push_str(if *last { "├─ " } else { "└─ " });
    text
}

fn label(span: &TraceSpan) -> String {
    let version = match span.version.as_str() {
        "" => String::new(),
        version => format!(" {version}"),
    };
    // A service's router reports under the service's name.
    let router = span.attributes.get("weir.component").is_some_and(|what| what == "router");
    let router = if router && span.service != "gateway" { " router" } else { "" };
    format!("{}{version}{router} {} {}", span.service, span.kind, span.name)
}

fn bar(span: &TraceSpan, total: f64) -> String {
    if total <= 0.0 {
        return " ".repeat(BAR);
    }
    // In range: both are shares of `total`.
    let scale = |ms: f64| ((ms / total).clamp(0.0, 1.0) * BAR as f64).round() as usize;
    let start = scale(span.start_ms).min(BAR - 1);
    let length = scale(span.duration_ms).clamp(1, BAR - start);
    format!("{}{}{}", " ".repeat(start), "█".repeat(length), " ".repeat(BAR - start - length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: &str, what: (&str, &str, &str), start: f64, ms: f64) -> TraceSpan {
        TraceSpan {
            span_id: id.into(),
            parent_span_id: parent.into(),
            service: what.0.into(),
            kind: what.1.into(),
            name: what.2.into(),
            start_ms: start,
            duration_ms: ms,
            ..TraceSpan::default()
        }
    }

    #[test]
    fn a_tree_with_times() {
        let trace = Trace {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            spans: vec![
                span("1", "", ("gateway", "server", "POST"), 0.0, 60.0),
                span("2", "1", ("gateway", "client", "Register"), 2.0, 56.0),
                span("4", "3", ("users", "server", "CreateUser"), 40.0, 4.0),
                span("3", "2", ("auth", "server", "Register"), 4.0, 52.0),
                TraceSpan {
                    error: true,
                    version: "v2".into(),
                    ..span("5", "3", ("notifications", "server", "Enqueue"), 46.0, 8.0)
                },
            ],
        };
        let want = "\
trace 4bf92f3577b34da6a3ce929d0e0e4736  5 spans  60.0 ms

gateway server POST                           0.0    60.0 ms  |██████████████████████████████|
└─ gateway client Register                    2.0    56.0 ms  | ████████████████████████████ |
   └─ auth server Register                    4.0    52.0 ms  |  ██████████████████████████  |
      ├─ users server CreateUser             40.0     4.0 ms  |                    ██        |
      └─ notifications v2 server Enqueue     46.0     8.0 ms  |                       ████   | error
";
        assert_eq!(draw(&trace), want);
    }

    #[test]
    fn a_span_without_its_parent_is_a_root_and_a_cycle_ends() {
        let trace = Trace {
            trace_id: "a".into(),
            spans: vec![span("2", "gone", ("users", "server", "GetMe"), 0.0, 0.0)],
        };
        assert!(draw(&trace).contains("\nusers server GetMe"));
        let cycle = Trace {
            trace_id: "a".into(),
            spans: vec![span("1", "1", ("a", "server", "x"), 0.0, 1.0)],
        };
        assert!(draw(&cycle).starts_with("trace a"));
    }
}
