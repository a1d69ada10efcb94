use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::super::{SpanContext, SpanId, TraceId};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn extract(pairs: &[(&str, &str)]) -> Option<SpanContext> {
    SpanContext::extract(&headers(pairs))
}

/// What goes out when a request with these headers is passed on.
fn passed_on(pairs: &[(&str, &str)]) -> (SpanContext, HeaderMap) {
    let mut map = headers(pairs);
    let child = SpanContext::accept(&map, || true);
    child.inject(&mut map);
    (child, map)
}

fn text<'a>(map: &'a HeaderMap, name: &str) -> Option<&'a str> {
    map.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn reads_traceparent() {
    for (flags, sampled) in [("00", false), ("01", true), ("03", true), ("fe", false)] {
        let value = format!("00-{TRACE}-{SPAN}-{flags}");
        let context = extract(&[("traceparent", &value)]).unwrap();
        assert_eq!(context.trace_id(), TRACE.parse::<TraceId>().unwrap());
        assert_eq!(context.span_id(), SPAN.parse::<SpanId>().unwrap());
        assert_eq!(context.is_sampled(), sampled, "{flags}");
    }
}

#[test]
fn reads_later_versions_leniently() {
    for good in [
        format!("01-{TRACE}-{SPAN}-01"),
        format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"),
        format!("fe-{TRACE}-{SPAN}-01-"),
    ] {
        assert!(extract(&[("traceparent", &good)]).is_some(), "{good}");
    }
}

#[test]
fn malformed_traceparents_start_anew() {
    let zero_trace = "0".repeat(32);
    for wrong in [
        String::new(),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00-{zero_trace}-{SPAN}-01"),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("00-{TRACE}-{SPAN}-0x"),
        format!("00-{TRACE}-{SPAN}-01-"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("00-{TRACE}-{SPAN}-01."),
        format!("cc-{TRACE}-{SPAN}-01.more"),
        format!("0-{TRACE}-{SPAN}-001"),
        format!("00_{TRACE}_{SPAN}_01"),
        format!(".0-{TRACE}-{SPAN}-01"),
    ] {
        assert_eq!(extract(&[("traceparent", &wrong)]), None, "{wrong}");
        let (child, _) = passed_on(&[("traceparent", &wrong), ("tracestate", "a=1")]);
        assert_ne!(child.trace_id().to_string(), TRACE);
        assert_eq!(child.parent_id(), None);
    }
    let good = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(extract(&[("traceparent", &good), ("traceparent", &good)]), None);
}

#[test]
fn passes_on_trace_parent_and_decision() {
    let value = format!("00-{TRACE}-{SPAN}-00");
    let (child, map) = passed_on(&[("traceparent", &value)]);
    assert_eq!(child.parent_id().unwrap().to_string(), SPAN);
    let expected = format!("00-{TRACE}-{}-00", child.span_id());
    assert_eq!(text(&map, "traceparent"), Some(&*expected));
    assert_ne!(child.span_id().to_string(), SPAN);
    assert!(!map.contains_key("b3") && !map.contains_key("x-b3-traceid"));
}

#[test]
fn passes_on_tracestate_when_it_is_well_formed() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let state = |values: &[&str]| {
        let mut pairs = vec![("traceparent", &*parent)];
        pairs.extend(values.iter().map(|value| ("tracestate", *value)));
        text(&passed_on(&pairs).1, "tracestate").map(str::to_owned)
    };
    assert_eq!(state(&["congo=t61rcWkgMzE"]).as_deref(), Some("congo=t61rcWkgMzE"));
    assert_eq!(state(&["a=1, b@c=2,", "3d@e=4"]).as_deref(), Some("a=1, b@c=2,,3d@e=4"));
    assert_eq!(state(&[]), None);
    let many = (0..33).map(|n| format!("k{n}=1")).collect::<Vec<_>>().join(",");
    let long = format!("a={}", "x".repeat(257));
    for wrong in ["foo", "foo=", "=1", "Foo=1", "1a=1", "a@b@c=1", "a@1=1", "a=b=c", &many, &long] {
        assert_eq!(state(&[wrong]), None, "{wrong}");
    }
}

#[test]
fn a_new_trace_brings_no_foreign_tracestate() {
    assert_eq!(text(&passed_on(&[("tracestate", "a=1")]).1, "tracestate"), None);
}

#[test]
fn reads_and_passes_on_b3_in_one_header() {
    for (decision, sampled) in [("-1", true), ("-0", false), ("-d", true), ("", true)] {
        let value = format!("{TRACE}-{SPAN}{decision}");
        let (child, map) = passed_on(&[("b3", &value)]);
        assert_eq!((child.trace_id().to_string().as_str(), child.is_sampled()), (TRACE, sampled));
        assert_eq!(child.parent_id().unwrap().to_string(), SPAN);
        let decision = if decision.is_empty() { "-1" } else { decision };
        let expected = format!("{TRACE}-{}{decision}-{SPAN}", child.span_id());
        assert_eq!(text(&map, "b3"), Some(&*expected));
        assert!(map.contains_key("traceparent") && !map.contains_key("x-b3-traceid"));
    }
}

#[test]
fn reads_and_passes_on_b3_in_many_headers() {
    let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-parentspanid", "1234")];
    let (child, map) = passed_on(&[&ids[..], &[("x-b3-sampled", "0")]].concat());
    assert_eq!(text(&map, "x-b3-traceid"), Some(TRACE));
    assert_eq!(text(&map, "x-b3-spanid"), Some(&*child.span_id().to_string()));
    assert_eq!(text(&map, "x-b3-parentspanid"), Some(SPAN));
    assert_eq!(text(&map, "x-b3-sampled"), Some("0"));
    assert!(map.contains_key("traceparent") && !map.contains_key("b3"));

    let (child, map) = passed_on(&[&ids[..], &[("x-b3-flags", "1")]].concat());
    assert!(child.is_sampled());
    assert_eq!((text(&map, "x-b3-flags"), text(&map, "x-b3-sampled")), (Some("1"), None));
}

#[test]
fn short_b3_trace_ids_stay_short_in_b3() {
    let (_, map) = passed_on(&[("x-b3-traceid", SPAN), ("x-b3-spanid", SPAN)]);
    assert_eq!(text(&map, "x-b3-traceid"), Some(SPAN));
    let padded = format!("00-0000000000000000{SPAN}-");
    assert!(text(&map, "traceparent").unwrap().starts_with(&padded));
}

#[test]
fn b3_may_decide_without_ids_or_leave_it_open() {
    for (pair, sampled) in [
        (("b3", "0"), false),
        (("b3", "1"), true),
        (("b3", "d"), true),
        (("x-b3-sampled", "0"), false),
        (("x-b3-flags", "1"), true),
    ] {
        assert_eq!(extract(&[pair]), None);
        let accepted = SpanContext::accept(&headers(&[pair]), || panic!("it was decided"));
        assert_eq!((accepted.is_sampled(), accepted.parent_id()), (sampled, None), "{pair:?}");
    }
    let open = format!("{TRACE}-{SPAN}");
    for answer in [true, false] {
        let accepted = SpanContext::accept(&headers(&[("b3", &open)]), || answer);
        assert_eq!(accepted.is_sampled(), answer);
        assert_eq!(SpanContext::accept(&HeaderMap::new(), || answer).is_sampled(), answer);
    }
}

#[test]
fn traceparent_wins_and_b3_follows_it() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let other = "463ac35c9f6413ad48485a3953bb6124-a2fb4a1d1a96d312-0";
    let (child, map) = passed_on(&[("traceparent", &parent), ("b3", other)]);
    assert_eq!(child.trace_id().to_string(), TRACE);
    let expected = format!("{TRACE}-{}-1-{SPAN}", child.span_id());
    assert_eq!(text(&map, "b3"), Some(&*expected));
}

proptest! {
    #[test]
    fn what_is_injected_is_extracted(
        trace in 1u128.., span in 1u64.., sampled: bool, b3 in prop::sample::select(vec!["", "b3", "x-b3-traceid"]),
    ) {
        let mut map = HeaderMap::new();
        map.insert("traceparent", format!("00-{trace:032x}-{span:016x}-0{}", u8::from(sampled)).parse().unwrap());
        if !b3.is_empty() {
            map.insert(b3, HeaderValue::from_static("rubbish"));
        }
        let child = SpanContext::accept(&map, || !sampled);
        child.inject(&mut map);
        // By W3C, and by B3 alone.
        let again = SpanContext::extract(&map).unwrap();
        map.remove("traceparent");
        let by_b3 = SpanContext::extract(&map);
        prop_assert_eq!(by_b3.is_some(), !b3.is_empty());
        for read in by_b3.iter().chain([&again]) {
            prop_assert_eq!(
                (read.trace_id(), read.span_id(), read.is_sampled()),
                (child.trace_id(), child.span_id(), sampled)
            );
        }
    }

    #[test]
    fn no_header_makes_it_panic(
        pairs in prop::collection::vec((
            prop::sample::select(vec!["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"]),
            prop::collection::vec(prop_oneof![Just(b'-'), Just(b'0'), Just(b'1'), Just(b'd'), Just(b','), Just(b'='), 32u8..=255], 0..70),
        ), 0..5),
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                map.append(name, value);
            }
        }
        SpanContext::accept(&map, || true).inject(&mut map);
        prop_assert!(SpanContext::extract(&map).is_some());
    }
}
