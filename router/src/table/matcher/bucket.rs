//! Matches of one path: what is left to look at is the method, headers and query.

use std::sync::Arc;

use http::HeaderName;
use weir_mesh::model::{PathMatch, RouteMatch, ValueMatch};

use super::super::{Action, Map};
use super::{Query, Rank};

/// From so many matches on, reading all of them costs more than the index.
const INDEXED: usize = 8;

/// One match of one rule.
pub struct Candidate {
    wants: RouteMatch,
    rank: Rank,
    action: Arc<Action>,
}

/// Matches whose paths are alike, by rank.
#[derive(Default)]
pub struct Bucket {
    candidates: Vec<Candidate>,
    index: Option<Index>,
}

/// Places of candidates by a header's value.
type ByValue = Map<Arc<str>, Vec<usize>>;

/// Places of candidates, ascending: a route with a rule for each of many tenants
/// or users differs by one header's value alone.
struct Index {
    by_header: Vec<(HeaderName, ByValue)>,
    /// Those that want no header exactly.
    rest: Vec<usize>,
}

impl Candidate {
    pub fn new(wants: RouteMatch, rank: Rank, action: Arc<Action>) -> Self {
        Self { wants, rank, action }
    }

    pub fn path(&self) -> &PathMatch {
        &self.wants.path
    }

    fn takes(&self, query: &Query<'_>) -> bool {
        self.wants.method.as_ref().is_none_or(|method| method == query.method)
            && self.wants.headers.iter().all(|(name, value)| {
                // Of a repeated header the Gateway API matches the first.
                query.headers.get(name).is_some_and(|found| value.matches(found.as_bytes()))
            })
            && self.wants.query.iter().all(|(name, value)| {
                let found = query_param(query.query.unwrap_or_default(), name);
                found.is_some_and(|found| value.matches(found.as_bytes()))
            })
            // By hash the others are known to.
            && match &self.wants.path {
                path @ (PathMatch::Regex(_) | PathMatch::GrpcRegex { .. }) => {
                    path.matches(query.path)
                }
                _ => true,
            }
    }

    fn exact_headers(&self) -> impl Iterator<Item = (&HeaderName, &Arc<str>)> {
        self.wants.headers.iter().filter_map(|(name, value)| match value {
            ValueMatch::Exact(value) => Some((name, value)),
            ValueMatch::Regex(_) => None,
        })
    }
}

impl Bucket {
    pub fn add(&mut self, candidate: Candidate) {
        self.candidates.push(candidate);
    }

    pub fn seal(&mut self) {
        // Stable: of one rule's matches the first stays first.
        self.candidates.sort_by(|a, b| a.rank.cmp(&b.rank));
        self.candidates.shrink_to_fit();
        self.index = (self.candidates.len() > INDEXED).then(|| Index::new(&self.candidates));
    }

    pub fn find(&self, query: &Query<'_>) -> Option<&Arc<Action>> {
        let at = match &self.index {
            None => self.candidates.iter().position(|c| c.takes(query)),
            Some(index) => index.find(&self.candidates, query),
        };
        at.map(|at| &self.candidates[at].action)
    }
}

impl Index {
    fn new(candidates: &[Candidate]) -> Self {
        // The rarest of its headers tells a candidate apart best.
        let mut counts: Map<(&HeaderName, &Arc<str>), usize> = Map::default();
        for pair in candidates.iter().flat_map(Candidate::exact_headers) {
            *counts.entry(pair).or_default() += 1;
        }
        let mut by_header: Vec<(HeaderName, ByValue)> = Vec::new();
        let mut rest = Vec::new();
        for (place, candidate) in candidates.iter().enumerate() {
            let rarest = candidate.exact_headers().min_by_key(|pair| counts.get(pair).copied());
            let Some((name, value)) = rarest else {
                rest.push(place);
                continue;
            };
            let at = by_header.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                by_header.push((name.clone(), ByValue::default()));
                by_header.len() - 1
            });
            by_header[at].1.entry(value.clone()).or_default().push(place);
        }
        Self { by_header, rest }
    }

    fn find(&self, candidates: &[Candidate], query: &Query<'_>) -> Option<usize> {
        let mut best = first(&self.rest, candidates, query, usize::MAX);
        for (name, by_value) in &self.by_header {
            let value = query.headers.get(name).and_then(|value| value.to_str().ok());
            if let Some(places) = value.and_then(|value| by_value.get(value)) {
                let limit = best.unwrap_or(usize::MAX);
                best = first(places, candidates, query, limit).or(best);
            }
        }
        best
    }
}

/// The first of `places` below `limit` that takes it.
fn first(
    places: &[usize],
    candidates: &[Candidate],
    query: &Query<'_>,
    limit: usize,
) -> Option<usize> {
    let before = places.iter().copied().take_while(|place| *place < limit);
    before.into_iter().find(|place| candidates[*place].takes(query))
}

/// The first value of a query parameter, decoded.
fn query_param(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => match (hex(at + 1), hex(at + 2)) {
                (Some(high), Some(low)) => {
                    out.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
