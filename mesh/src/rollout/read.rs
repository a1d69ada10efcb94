//! Document -> [`Spec`].

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::document::{
    AudienceDocument, EndDocument, OnFailureDocument, RolloutDocument, StepDocument,
    StrategyDocument, WriteBackDocument,
};
use super::{MAX_STEPS, OnFailure, Phase, Spec, Step, Strategy, WriteBack, analysis, webhook};
use crate::duration;
use crate::model::{
    AudienceBy, MAX_AUDIENCE_HEADERS, MAX_AUDIENCE_VALUES, VersionName, Violations,
};
use crate::policy::value::DurationText;

const SECOND: Duration = Duration::from_secs(1);
/// A week.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// The steps of a canary that says nothing of them.
const DEFAULT_WEIGHTS: [u32; 5] = [5, 10, 25, 50, 100];

/// Reads the fields below one path.
pub(super) struct Reader<'a> {
    at: String,
    bad: &'a mut Violations,
}

impl<'a> Reader<'a> {
    pub fn new(at: &str, bad: &'a mut Violations) -> Self {
        Self { at: at.to_owned(), bad }
    }

    /// Of a field that has fields of its own.
    pub fn at(&mut self, field: &str) -> Reader<'_> {
        Reader { at: self.path(field), bad: self.bad }
    }

    fn path(&self, field: &str) -> String {
        match field {
            "" => self.at.clone(),
            _ if self.at.is_empty() => field.to_owned(),
            _ => format!("{}.{field}", self.at),
        }
    }

    pub fn bad(&mut self, field: &str, why: impl Display) {
        let path = self.path(field);
        self.bad.add(path, why);
    }

    pub fn take<T, E: Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        let path = self.path(field);
        self.bad.take(&path, result)
    }

    pub fn number(&mut self, field: &str, value: u32, min: u32, max: u32) -> u32 {
        if !(min..=max).contains(&value) {
            self.bad(field, format_args!("{value} is not {min} to {max}"));
        }
        value
    }

    pub fn real(&mut self, field: &str, value: f64, min: f64, max: f64) -> f64 {
        if !(min..=max).contains(&value) {
            self.bad(field, format_args!("{value} is not {min} to {max}"));
        }
        value
    }

    /// Within `bounds`, both included.
    pub fn time(
        &mut self,
        field: &str,
        sent: Option<DurationText>,
        default: Duration,
        (min, max): (Duration, Duration),
    ) -> Duration {
        let value = sent.map_or(default, |text| text.0);
        if !(min..=max).contains(&value) {
            let [value, min, max] = [value, min, max].map(duration::print);
            self.bad(field, format_args!("{value} is not possible; use {min} to {max}"));
        }
        value
    }
}

/// None only after noting why.
pub(super) fn spec(
    document: &RolloutDocument,
    written: &Value,
    reader: &mut Reader<'_>,
) -> Option<Spec> {
    let service = reader.take("service", document.service.parse());
    let canary = reader.take("canary", document.canary.parse::<VersionName>());
    let stable = version("stable", document.stable.as_deref(), reader);
    let baseline = version("baseline", document.baseline.as_deref(), reader);
    if stable.is_some() && stable == canary {
        reader.bad("stable", "is the canary; name the version that serves now");
    }
    if baseline.is_some() && (baseline == canary || baseline == stable) {
        reader.bad("baseline", "is a version of its own, with a fresh instance of what serves now");
    }
    let strategy = match document.strategy {
        None | Some(StrategyDocument::Canary) => Strategy::Canary,
        Some(StrategyDocument::BlueGreen) => Strategy::BlueGreen,
    };
    let steps = steps(document.steps.as_deref(), strategy, reader);
    let judged = match &document.analysis {
        Some(sent) => analysis::read(sent, &mut reader.at("analysis")),
        None if document.steps.is_none() && strategy == Strategy::Canary => {
            analysis::read(&Default::default(), &mut reader.at("analysis"))
        }
        None => None,
    };
    if judged.is_none() {
        for (i, step) in document.steps.iter().flatten().enumerate() {
            if step.analyze.is_some() {
                let why = "has nothing to wait for; set analysis, or {} of it for the defaults";
                reader.bad(&format!("steps[{i}].analyze"), why);
            }
        }
    }
    let deadline = reader.time("deadline", document.deadline, 3600 * SECOND, (SECOND, LONGEST));
    let write_back =
        document.write_back.as_ref().and_then(|sent| write_back(sent, &mut reader.at("writeBack")));
    Some(Spec {
        service: service?,
        strategy,
        stable,
        canary: canary?,
        baseline,
        steps,
        analysis: judged,
        deadline,
        on_failure: match document.on_failure {
            None | Some(OnFailureDocument::RollBack) => OnFailure::RollBack,
            Some(OnFailureDocument::Pause) => OnFailure::Pause,
        },
        write_back,
        document: Arc::new(written.clone()),
    })
}

fn write_back(sent: &WriteBackDocument, reader: &mut Reader<'_>) -> Option<WriteBack> {
    let webhook = webhook::read(&sent.webhook, &mut reader.at("webhook"));
    let phase = |end: &EndDocument| match end {
        EndDocument::Succeeded => Phase::Succeeded,
        EndDocument::RolledBack => Phase::RolledBack,
        EndDocument::Aborted => Phase::Aborted,
    };
    let on = sent.phases.as_ref().map(|phases| phases.iter().map(phase).collect());
    Some(WriteBack { webhook: webhook?, on: on.unwrap_or_else(|| vec![Phase::Succeeded]) })
}

fn version(field: &str, sent: Option<&str>, reader: &mut Reader<'_>) -> Option<VersionName> {
    sent.and_then(|name| reader.take(field, name.parse()))
}

fn steps(sent: Option<&[StepDocument]>, strategy: Strategy, reader: &mut Reader<'_>) -> Vec<Step> {
    let mut steps: Vec<Step> = match (sent, strategy) {
        (None, Strategy::Canary) => DEFAULT_WEIGHTS.into_iter().map(Step::SetWeight).collect(),
        (None, Strategy::BlueGreen) => vec![Step::Pause(None)],
        (Some(sent), _) => {
            if !(1..=MAX_STEPS).contains(&sent.len()) {
                let count = sent.len();
                reader.bad("steps", format_args!("has {count} steps; 1 to {MAX_STEPS}"));
            }
            let read = |(i, one)| step(one, &mut reader.at(&format!("steps[{i}]")));
            sent.iter().enumerate().filter_map(read).collect()
        }
    };
    // Of steps that could not all be read, the places are others.
    let all = sent.is_none_or(|sent| sent.len() == steps.len());
    match steps.iter().position(|step| *step == Step::SetWeight(100)) {
        None => steps.push(Step::SetWeight(100)),
        Some(full) if all => {
            for (i, step) in steps.iter().enumerate().skip(full + 1) {
                if matches!(step, Step::SetWeight(_) | Step::SetAudience(_) | Step::SetMirror(_)) {
                    let why = "comes after setWeight 100, which gives the canary everything";
                    reader.bad(&format!("steps[{i}]"), why);
                }
            }
        }
        Some(_) => {}
    }
    steps
}

fn step(sent: &StepDocument, reader: &mut Reader<'_>) -> Option<Step> {
    let StepDocument { set_weight, set_audience, set_mirror, pause, gate, analyze } = sent;
    let count = [
        set_weight.is_some(),
        set_audience.is_some(),
        set_mirror.is_some(),
        pause.is_some(),
        gate.is_some(),
        analyze.is_some(),
    ];
    if count.into_iter().filter(|set| *set).count() != 1 {
        let why =
            "must have exactly one of setWeight, setAudience, setMirror, pause, gate, analyze";
        reader.bad("", why);
        return None;
    }
    if let Some(weight) = set_weight {
        return Some(Step::SetWeight(reader.number("setWeight", *weight, 0, 100)));
    }
    if let Some(audience) = set_audience {
        return by(audience, &mut reader.at("setAudience")).map(Step::SetAudience);
    }
    if let Some(percent) = set_mirror {
        return Some(Step::SetMirror(reader.number("setMirror", *percent, 0, 100)));
    }
    if let Some(pause) = pause {
        let time = pause.duration.map(|_| {
            reader.time("pause.duration", pause.duration, SECOND, (Duration::ZERO, LONGEST))
        });
        return Some(Step::Pause(time));
    }
    if let Some(gate) = gate {
        return webhook::read(&gate.webhook, &mut reader.at("gate.webhook")).map(Step::Gate);
    }
    let analyze = analyze.as_ref()?;
    let time = analyze.duration.map(|_| {
        reader.time("analyze.duration", analyze.duration, SECOND, (Duration::ZERO, LONGEST))
    });
    Some(Step::Analyze { duration: time, min_requests: analyze.min_requests })
}

fn by(sent: &AudienceDocument, reader: &mut Reader<'_>) -> Option<AudienceBy> {
    match (&sent.headers, &sent.claim) {
        (Some(headers), None) => headers_by(headers, reader),
        (None, Some(claim)) => {
            let path: Vec<Arc<str>> = claim.name.split('.').map(Into::into).collect();
            if path.iter().any(|part| part.is_empty()) {
                let why = "is missing, or has an empty part; such as `group` or `realm.roles`";
                reader.bad("claim.name", why);
                return None;
            }
            let count = claim.values.len();
            if !(1..=MAX_AUDIENCE_VALUES).contains(&count) {
                let why = format_args!("has {count} values; 1 to {MAX_AUDIENCE_VALUES}");
                reader.bad("claim.values", why);
                return None;
            }
            let values = claim.values.iter().map(|value| value.as_str().into()).collect();
            Some(AudienceBy::Claim { path, values })
        }
        _ => {
            reader.bad("", "must have exactly one of headers, claim");
            None
        }
    }
}

fn headers_by(sent: &BTreeMap<String, String>, reader: &mut Reader<'_>) -> Option<AudienceBy> {
    let count = sent.len();
    if !(1..=MAX_AUDIENCE_HEADERS).contains(&count) {
        reader.bad("headers", format_args!("has {count} headers; 1 to {MAX_AUDIENCE_HEADERS}"));
        return None;
    }
    let mut headers = Vec::with_capacity(count);
    for (name, value) in sent {
        let field = format!("headers.{name}");
        let name = reader.take(&field, name.parse::<HeaderName>());
        headers.extend(name.zip(reader.take(&field, value.parse::<HeaderValue>())));
    }
    (headers.len() == count).then_some(AudienceBy::Headers(headers))
}
