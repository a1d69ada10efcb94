//! W3C Trace Context (Recommendation of 2021, level 1) and B3 headers.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::SpanContext;
use super::id::{SpanId, TraceId, hex};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3_SINGLE: HeaderName = HeaderName::from_static("b3");
const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// `00-<32 digits>-<16 digits>-<2 digits>`
const TRACEPARENT_LENGTH: usize = 55;
/// W3C section 3.3.1.5 asks for at least 512; more is a burden to everyone.
const TRACESTATE_MAX: usize = 1024;

/// Which B3 headers a request had, so that it goes on with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct B3 {
    single: bool,
    multi: bool,
    debug: bool,
    /// Its trace id had 16 digits.
    short: bool,
}

/// What a request says about its trace.
pub(super) enum Incoming {
    Nothing,
    /// B3 may carry the decision alone.
    Decision {
        sampled: bool,
        b3: B3,
    },
    Span {
        context: SpanContext,
        /// Whether the caller has said if the trace is recorded.
        decided: bool,
    },
}

struct Ids {
    trace_id: TraceId,
    span_id: SpanId,
}

/// B3's sampling state.
#[derive(Clone, Copy, PartialEq)]
enum Decision {
    Accept,
    Deny,
    Debug,
    Defer,
}

pub(super) fn extract(headers: &HeaderMap) -> Incoming {
    // Most requests from outside have none: one look at each name costs less
    // than a search for each of ours.
    let ours = |name: &HeaderName| {
        let name = name.as_str();
        name == "traceparent" || name == "b3" || name.starts_with("x-b3-")
    };
    if !headers.keys().any(ours) {
        return Incoming::Nothing;
    }
    let single = headers.get(B3_SINGLE);
    let multi = headers.get(B3_TRACE_ID).is_some() || headers.contains_key(B3_SAMPLED);
    let mut b3 = B3 { single: single.is_some(), multi, ..B3::default() };
    if let Some((ids, sampled)) = traceparent(headers) {
        let context = SpanContext {
            trace_id: ids.trace_id,
            span_id: ids.span_id,
            parent_id: None,
            sampled,
            b3,
            trace_state: trace_state(headers),
        };
        return Incoming::Span { context, decided: true };
    }
    let (ids, decision) = match single.and_then(|value| read_single(value.as_bytes(), &mut b3)) {
        Some(read) => read,
        None if multi || headers.contains_key(B3_FLAGS) => read_multi(headers, &mut b3),
        None => return Incoming::Nothing,
    };
    b3.debug = decision == Decision::Debug;
    let sampled = decision != Decision::Deny;
    match ids {
        Some(Ids { trace_id, span_id }) => Incoming::Span {
            context: SpanContext {
                trace_id,
                span_id,
                parent_id: None,
                sampled,
                b3,
                trace_state: None,
            },
            decided: decision != Decision::Defer,
        },
        None if decision == Decision::Defer => Incoming::Nothing,
        None => Incoming::Decision { sampled, b3 },
    }
}

fn traceparent(headers: &HeaderMap) -> Option<(Ids, bool)> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next()?.as_bytes();
    // Two callers at once cannot be: section 3.2.
    if values.next().is_some() || value.len() < TRACEPARENT_LENGTH {
        return None;
    }
    let version = hex(&value[..2])?;
    let shaped = match version {
        0 => value.len() == TRACEPARENT_LENGTH,
        0xff => false,
        // Section 4.3: later versions may add fields behind these.
        _ => value.get(TRACEPARENT_LENGTH).is_none_or(|b| *b == b'-'),
    };
    if !shaped || (value[2], value[35], value[52]) != (b'-', b'-', b'-') {
        return None;
    }
    let ids = Ids {
        trace_id: TraceId::from_hex(&value[3..35])?,
        span_id: SpanId::from_hex(&value[36..52])?,
    };
    Some((ids, hex(&value[53..55])? & 1 == 1))
}

/// Passed on as it came when it is well-formed, else left out (section 3.3).
fn trace_state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(TRACESTATE).iter();
    let first = values.next()?;
    let joined = match values.next() {
        // The usual case: only a reference count goes up.
        None => first.clone(),
        Some(second) => {
            let all: Vec<&[u8]> =
                [first, second].into_iter().chain(values).map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&all.join(&b","[..])).ok()?
        }
    };
    well_formed(joined.as_bytes()).then_some(joined)
}

/// Section 3.3.1: 1 to 32 members, each `key=value`; empty ones may stand between.
fn well_formed(list: &[u8]) -> bool {
    let mut members = 0;
    let good = list.split(|b| *b == b',').map(<[u8]>::trim_ascii).all(|member| {
        if member.is_empty() {
            return true;
        }
        members += 1;
        let mut halves = member.splitn(2, |b| *b == b'=');
        let key = halves.next().unwrap_or_default();
        halves.next().is_some_and(|value| valid_key(key) && valid_value(value))
    });
    good && (1..=32).contains(&members) && list.len() <= TRACESTATE_MAX
}

/// Section 3.3.1.3.1: `key` or `tenant@system`.
fn valid_key(key: &[u8]) -> bool {
    let inner = |b: &u8| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*' | b'/')
    };
    let part = |part: &[u8], max: usize, digit_first: bool| {
        let starts = part
            .first()
            .is_some_and(|b| b.is_ascii_lowercase() || digit_first && b.is_ascii_digit());
        starts && part.len() <= max && part.iter().all(inner)
    };
    match key.iter().position(|b| *b == b'@') {
        None => part(key, 256, false),
        Some(at) => part(&key[..at], 241, true) && part(&key[at + 1..], 14, false),
    }
}

/// Section 3.3.1.3.2.
fn valid_value(value: &[u8]) -> bool {
    let printable = |b: &u8| (0x20..=0x7e).contains(b) && !matches!(b, b',' | b'=');
    !value.is_empty() && value.len() <= 256 && value.iter().all(printable)
}

fn read_decision(text: &[u8]) -> Option<Decision> {
    match text {
        // The words are from before the format was written down.
        b"1" | b"true" => Some(Decision::Accept),
        b"0" | b"false" => Some(Decision::Deny),
        b"d" => Some(Decision::Debug),
        _ => None,
    }
}

/// 32 digits, or 16, which stand for the lower half.
fn b3_trace_id(digits: &[u8], b3: &mut B3) -> Option<TraceId> {
    b3.short = digits.len() == 16;
    match digits.len() {
        16 => std::num::NonZeroU128::new(hex(digits)?).map(TraceId),
        _ => TraceId::from_hex(digits),
    }
}

/// `<trace id>-<span id>[-<decision>[-<parent>]]`, or a decision alone.
fn read_single(value: &[u8], b3: &mut B3) -> Option<(Option<Ids>, Decision)> {
    if let Some(decision) = read_decision(value) {
        return Some((None, decision));
    }
    let mut parts = value.split(|b| *b == b'-');
    let trace_id = b3_trace_id(parts.next()?, b3)?;
    let span_id = SpanId::from_hex(parts.next()?)?;
    let decision = parts.next().map_or(Some(Decision::Defer), read_decision)?;
    Some((Some(Ids { trace_id, span_id }), decision))
}

fn read_multi(headers: &HeaderMap, b3: &mut B3) -> (Option<Ids>, Decision) {
    b3.multi = true;
    let header = |name: HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let decision = match header(B3_FLAGS) {
        Some(b"1") => Decision::Debug,
        _ => header(B3_SAMPLED).and_then(read_decision).unwrap_or(Decision::Defer),
    };
    let trace_id = header(B3_TRACE_ID).and_then(|digits| b3_trace_id(digits, b3));
    let span_id = header(B3_SPAN_ID).and_then(SpanId::from_hex);
    (trace_id.zip(span_id).map(|(trace_id, span_id)| Ids { trace_id, span_id }), decision)
}

/// `text` is made of hexadecimal digits and hyphens, so it always is a value.
#[inline]
fn set(headers: &mut HeaderMap, name: HeaderName, text: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(text) {
        headers.insert(name, value);
    }
}

// Inlined into programs that are built for speed where this crate is for size.
#[inline]
pub(super) fn inject(context: &SpanContext, headers: &mut HeaderMap) {
    let mut text = *b"00-________________________________-________________-00";
    context.trace_id.write_hex(&mut text[3..35]);
    context.span_id.write_hex(&mut text[36..52]);
    text[54] += u8::from(context.sampled);
    set(headers, TRACEPARENT, &text);
    match &context.trace_state {
        Some(state) => {
            headers.insert(TRACESTATE, state.clone());
        }
        None if headers.keys().any(|name| *name == TRACESTATE) => {
            headers.remove(TRACESTATE);
        }
        None => {}
    }
    if context.b3.single || context.b3.multi {
        inject_b3(context, &text, headers);
    }
}

fn inject_b3(
    context: &SpanContext,
    traceparent: &[u8; TRACEPARENT_LENGTH],
    headers: &mut HeaderMap,
) {
    let B3 { single, multi, debug, short } = context.b3;
    let short = short && context.trace_id.0.get() >> 64 == 0;
    let trace_id = &traceparent[if short { 19 } else { 3 }..35];
    let span_id = &traceparent[36..52];
    let mut parent = [0; 16];
    if let Some(id) = context.parent_id {
        id.write_hex(&mut parent);
    }
    let decision: &[u8] = match (debug, context.sampled) {
        (true, _) => b"d",
        (false, true) => b"1",
        (false, false) => b"0",
    };
    if single {
        let mut value = [trace_id, span_id, decision].join(&b'-');
        if context.parent_id.is_some() {
            value.push(b'-');
            value.extend_from_slice(&parent);
        }
        set(headers, B3_SINGLE, &value);
    }
    if multi {
        set(headers, B3_TRACE_ID, trace_id);
        set(headers, B3_SPAN_ID, span_id);
        match context.parent_id {
            Some(_) => set(headers, B3_PARENT_SPAN_ID, &parent),
            None => drop(headers.remove(B3_PARENT_SPAN_ID)),
        }
        // The format forbids a decision beside the debug flag, which implies it.
        if debug {
            headers.remove(B3_SAMPLED);
            set(headers, B3_FLAGS, b"1");
        } else {
            headers.remove(B3_FLAGS);
            set(headers, B3_SAMPLED, decision);
        }
    }
}
