//! Where recorded requests go, and where they would go.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use weir_router::explain::{Caller, Compiled, Routed};

use super::record::Recorded;

/// Requests that differ only in what is not recorded are worked out once; so many
/// different ones are remembered.
const REMEMBERED: usize = if cfg!(test) { 1_000 } else { 100_000 };
/// Groups of changed requests; those of further ones are counted together.
const GROUPS: usize = 1_000;
/// Lines that cannot be read and are told by number.
const BAD: usize = 20;

/// Two configurations, and what was found so far.
pub struct Comparison {
    current: Compiled,
    proposed: Compiled,
    known: HashMap<Key, Outcome>,
    groups: HashMap<(Routed, Routed), Group>,
    result: Comparing,
}

/// What decides where a request goes.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    caller: String,
    method: String,
    uri: String,
}

#[derive(Clone)]
struct Outcome {
    change: Option<(Routed, Routed)>,
    uncertain: bool,
}

/// What a replay found. Field names are stable: programs read them.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparing {
    /// That were replayed.
    pub requests: u64,
    /// That would be treated differently.
    pub changed: u64,
    /// Some rule asks for headers, the query or a host that was not recorded: it
    /// might take the request, now or then.
    pub uncertain: u64,
    /// From other routers: those decided.
    pub inbound: u64,
    /// Lines that cannot be read.
    pub bad: u64,
    /// The first of them.
    pub bad_lines: Vec<BadLine>,
    /// Largest first.
    pub changes: Vec<Group>,
    /// Of groups that are not among `changes`.
    pub changed_otherwise: u64,
}

/// A line that cannot be read.
#[derive(Debug, Serialize)]
pub struct BadLine {
    line: u64,
    why: String,
}

/// Requests that go from the same rule to the same rule.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    from: Side,
    to: Side,
    /// The same rule and backends; its filters, timeouts or the like differ.
    only_rule: bool,
    requests: u64,
    /// One of them.
    example: String,
}

#[derive(Debug, Clone, Serialize)]
struct Side {
    route: String,
    backends: String,
}

impl From<&Routed> for Side {
    fn from(routed: &Routed) -> Self {
        Self { route: routed.route.to_string(), backends: routed.backends.clone() }
    }
}

impl Comparison {
    /// Nothing was read yet.
    #[must_use]
    pub fn new(current: Compiled, proposed: Compiled) -> Self {
        Self {
            current,
            proposed,
            known: HashMap::new(),
            groups: HashMap::new(),
            result: Comparing::default(),
        }
    }

    /// Notes a line that cannot be read.
    pub fn bad(&mut self, line: u64, why: String) {
        self.result.bad += 1;
        if self.result.bad_lines.len() < BAD {
            self.result.bad_lines.push(BadLine { line, why });
        }
    }

    /// Replays one request.
    pub fn add(&mut self, recorded: Recorded) {
        if recorded.is_inbound {
            self.result.inbound += 1;
            return;
        }
        self.result.requests += 1;
        let (outcome, example) = self.outcome(&recorded);
        self.result.uncertain += u64::from(outcome.uncertain || recorded.without_host);
        let Some((from, to)) = outcome.change else { return };
        self.result.changed += 1;
        let room = self.groups.len() < GROUPS;
        let key = (from, to);
        match self.groups.get_mut(&key) {
            Some(group) => group.requests += 1,
            None if room => {
                let (from, to) = (Side::from(&key.0), Side::from(&key.1));
                let only_rule = from.route == to.route && from.backends == to.backends;
                self.groups.insert(key, Group { from, to, only_rule, requests: 1, example });
            }
            None => self.result.changed_otherwise += 1,
        }
    }

    fn outcome(&mut self, recorded: &Recorded) -> (Outcome, String) {
        let (caller, request) = (&recorded.caller, &recorded.request);
        let from = match caller {
            Caller::Gateway => "gateway".to_owned(),
            Caller::Service(Some(name)) => name.to_string(),
            Caller::Service(None) => "mesh".to_owned(),
        };
        let (method, uri) = (request.method().to_string(), request.uri().to_string());
        let example = format!("{method} {uri} from {from}");
        let key = Key { caller: from, method, uri };
        if let Some(known) = self.known.get(&key) {
            return (known.clone(), example);
        }
        let (now, then) =
            (self.current.routed(caller, request), self.proposed.routed(caller, request));
        let more = |side: &Compiled| side.hinges_on_more(caller, request);
        let outcome = Outcome {
            uncertain: more(&self.current) || more(&self.proposed),
            change: (now != then).then_some((now, then)),
        };
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(key, outcome.clone());
        (outcome, example)
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Comparing {
        let mut changes: Vec<Group> = self.groups.into_values().collect();
        changes.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.example.cmp(&b.example)));
        Comparing { changes, ..self.result }
    }
}

impl Comparing {
    /// What was not replayed, in words.
    #[must_use]
    pub fn skipped(&self) -> String {
        format!(
            "{} lines of other routers' requests, {} that cannot be read",
            self.inbound, self.bad
        )
    }
}

impl fmt::Display for Comparing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in &self.changes {
            let Group { from, to, only_rule, requests, example } = group;
            let plural = if *requests == 1 { "request" } else { "requests" };
            writeln!(f, "{requests} {plural}, such as {example}")?;
            writeln!(f, "  from {from}\n  to   {to}")?;
            if *only_rule {
                writeln!(f, "  (the same backends; filters, timeouts or the like differ)")?;
            }
        }
        if self.changed_otherwise > 0 {
            writeln!(f, "{} more, of other groups", self.changed_otherwise)?;
        }
        let Self { requests, changed, uncertain, .. } = self;
        writeln!(f, "{changed} of {requests} requests would be treated differently")?;
        if *uncertain > 0 {
            writeln!(
                f,
                "{uncertain} are uncertain: a rule asks for headers, a query or a host that the \
                 log does not have"
            )?;
        }
        if self.inbound + self.bad > 0 {
            writeln!(f, "left out: {}", self.skipped())?;
        }
        for bad in &self.bad_lines {
            writeln!(f, "  line {}: {}", bad.line, bad.why)?;
        }
        Ok(())
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.route)?;
        if !self.backends.is_empty() {
            write!(f, " to {}", self.backends)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
