use proptest::prelude::*;

use super::{FindError, Limits, Span, SpanId, TraceId, Traces};

fn span(id: u8, parent: Option<u8>, start: u64) -> Span {
    let long = |id: u8| -> SpanId { [id; 8] };
    Span {
        id: long(id),
        parent: parent.map(long),
        name: format!("span {id}"),
        kind: "server",
        service: "products".into(),
        version: "v1".into(),
        start,
        end: start + 10,
        error: id == 3,
        attributes: vec![],
    }
}

fn trace(id: u8) -> TraceId {
    [id; 16]
}

#[test]
fn a_trace_is_a_tree_by_time() {
    let traces = Traces::default();
    for span in [span(4, Some(2), 5), span(3, Some(1), 9), span(2, Some(1), 3), span(1, None, 1)] {
        assert!(traces.add(trace(0xaa), span));
    }
    traces.add(trace(0xaa), span(9, Some(99), 2));
    let (id, spans) = traces.find("AAAAAAAA").unwrap();
    let seen: Vec<_> = spans.iter().map(|(span, depth)| (span.id[0], *depth)).collect();
    assert_eq!(id, trace(0xaa));
    assert_eq!(seen, [(1, 0), (2, 1), (4, 2), (3, 1), (9, 0)], "an orphan is a root");
    let summary = traces.list(10).remove(0);
    assert_eq!((summary.root.as_str(), summary.spans), ("products span 1", 5));
    assert_eq!((summary.start, summary.duration, summary.error), (1, 18, true));
}

#[test]
fn a_beginning_must_be_unambiguous() {
    let traces = Traces::default();
    let mut other = trace(0xaa);
    other[15] = 0;
    traces.add(trace(0xaa), span(1, None, 1));
    traces.add(other, span(1, None, 2));
    assert!(matches!(traces.find("aaaaaaaa"), Err(FindError::Ambiguous { count: 2, .. })));
    assert!(traces.find(&"aa".repeat(16)).is_ok());
    assert!(matches!(traces.find("bbbbbbbb"), Err(FindError::None(_))));
    for bad in ["", "aaaaaaa", "zzzzzzzz", &"a".repeat(33)] {
        assert!(matches!(traces.find(bad), Err(FindError::Shape(_))), "{bad}");
    }
}

#[test]
fn memory_is_bounded_and_the_oldest_goes() {
    let traces = Traces::new(Limits { traces: 3, spans: 10, spans_per_trace: 4 });
    for id in 1..=5 {
        traces.add(trace(id), span(1, None, u64::from(id)));
    }
    let kept: Vec<_> = traces.list(10).iter().map(|t| t.id[0]).collect();
    assert_eq!(kept, [5, 4, 3]);
    let added: Vec<_> = (1..=6).map(|id| traces.add(trace(5), span(id, None, 0))).collect();
    assert_eq!(added, [true, true, true, true, false, false], "the first was there already");
    for id in 1..=4 {
        traces.add(trace(6), span(id, None, 6));
        traces.add(trace(7), span(id, None, 7));
    }
    let spans: usize = traces.list(10).iter().map(|t| t.spans).sum();
    assert!(spans <= 10, "{spans}");
}

proptest! {
    #[test]
    fn every_span_shows_up_once_below_its_parent(
        parents in prop::collection::vec(prop::option::of(0u8..12), 1..12),
    ) {
        let traces = Traces::default();
        for (id, parent) in (0u8..).zip(&parents) {
            traces.add(trace(1), span(id + 1, parent.map(|p| p + 1), u64::from(id)));
        }
        let (_, spans) = traces.find("01010101").unwrap();
        prop_assert_eq!(spans.len(), parents.len());
        for (i, (span, depth)) in spans.iter().enumerate() {
            if *depth > 0 {
                let above = spans[..i].iter().rev().find(|(_, d)| d + 1 == *depth).unwrap();
                prop_assert_eq!(Some(above.0.id), span.parent);
            }
        }
    }
}
