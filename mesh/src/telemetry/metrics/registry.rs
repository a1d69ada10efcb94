//! Where instruments are bound to their names, and written out.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::DURATION_BOUNDS;
use super::instrument::{Counter, Gauge, Histogram};
use super::name::{label_name, metric_name};

/// The media type of [`Registry::render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Series in one registry: labels that someone else chooses must not fill the
/// memory.
const SERIES: usize = 10_000;
const OVERFLOW: (&str, &str) = ("otel_metric_overflow", "true");

/// All instruments of a process. Clones are the same registry.
///
/// Binding takes a lock; the instruments it gives do not.
#[derive(Clone)]
pub struct Registry(Arc<Mutex<State>>);

struct State {
    families: BTreeMap<String, Family>,
    series: usize,
    limit: usize,
}

struct Family {
    kind: Kind,
    help: String,
    /// By their labels as they are rendered: `a="1",b="2"`.
    series: BTreeMap<String, Instrument>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone)]
enum Instrument {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Registry {
    /// An empty one that takes 10,000 series. Further ones are counted
    /// together, in a series of each metric labelled
    /// `otel_metric_overflow="true"`.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(SERIES)
    }

    /// An empty one that takes `limit` series.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(State { families: BTreeMap::new(), series: 0, limit })))
    }

    /// A counter. `name` is OpenTelemetry's (dots; no `_total`), `unit` UCUM's
    /// (`s`, `By`, `{request}`, `1`). The same name and labels give the same
    /// counter.
    ///
    /// A name that is already another kind of instrument gives a counter that
    /// is not rendered (and panics in debug builds): names are constants, so
    /// that is a mistake in the program.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str, unit: &str, labels: &[(&str, &str)]) -> Counter {
        let new = Counter::default();
        self.bind_counter(name, help, unit, labels, &new)
    }

    /// Like [`Registry::counter`], but shows `counter`, which exists already.
    /// Gives the one that was bound before, if there was one.
    pub fn bind_counter(
        &self,
        name: &str,
        help: &str,
        unit: &str,
        labels: &[(&str, &str)],
        counter: &Counter,
    ) -> Counter {
        let make = || Instrument::Counter(counter.clone());
        match self.bind(Kind::Counter, name, help, unit, labels, make) {
            Some(Instrument::Counter(bound)) => bound,
            _ => counter.clone(),
        }
    }

    /// A gauge; see [`Registry::counter`].
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str, unit: &str, labels: &[(&str, &str)]) -> Gauge {
        let make = || Instrument::Gauge(Gauge::default());
        match self.bind(Kind::Gauge, name, help, unit, labels, make) {
            Some(Instrument::Gauge(bound)) => bound,
            _ => Gauge::default(),
        }
    }

    /// A histogram with [`DURATION_BOUNDS`]; see [`Registry::counter`].
    #[must_use]
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        unit: &str,
        labels: &[(&str, &str)],
    ) -> Histogram {
        self.histogram_with_bounds(name, help, unit, &DURATION_BOUNDS, labels)
    }

    /// A histogram with bounds of its own, inclusive and ascending; see
    /// [`Registry::counter`].
    #[must_use]
    pub fn histogram_with_bounds(
        &self,
        name: &str,
        help: &str,
        unit: &str,
        bounds: &'static [f64],
        labels: &[(&str, &str)],
    ) -> Histogram {
        let make = || Instrument::Histogram(Histogram::new(bounds));
        match self.bind(Kind::Histogram, name, help, unit, labels, make) {
            Some(Instrument::Histogram(bound)) => bound,
            _ => Histogram::new(bounds),
        }
    }

    /// Like [`Registry::histogram`], but shows `histogram`, which exists already.
    /// Gives the one that was bound before, if there was one.
    pub fn bind_histogram(
        &self,
        name: &str,
        help: &str,
        unit: &str,
        labels: &[(&str, &str)],
        histogram: &Histogram,
    ) -> Histogram {
        let make = || Instrument::Histogram(histogram.clone());
        match self.bind(Kind::Histogram, name, help, unit, labels, make) {
            Some(Instrument::Histogram(bound)) => bound,
            _ => histogram.clone(),
        }
    }

    fn bind(
        &self,
        kind: Kind,
        name: &str,
        help: &str,
        unit: &str,
        labels: &[(&str, &str)],
        make: impl FnOnce() -> Instrument,
    ) -> Option<Instrument> {
        let mut state = self.lock();
        let State { families, series, limit } = &mut *state;
        let family = families.entry(metric_name(name, unit, kind)).or_insert_with(|| Family {
            kind,
            help: escape(help, false),
            series: BTreeMap::new(),
        });
        debug_assert_eq!(family.kind, kind, "{name} is bound as two kinds of instrument");
        if family.kind != kind {
            return None;
        }
        let mut key = label_text(labels);
        if !family.series.contains_key(&key) {
            if *series >= *limit {
                key = label_text(&[OVERFLOW]);
            } else {
                *series += 1;
            }
        }
        Some(family.series.entry(key).or_insert_with(make).clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything, in the Prometheus text format 0.0.4, in a fixed order.
    #[must_use]
    pub fn render(&self) -> String {
        let state = self.lock();
        let mut out = String::with_capacity(state.series * 96);
        for (name, family) in &state.families {
            // Writing to a String does not fail.
            let _ = family.render(name, &mut out);
        }
        out
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} series)", self.lock().series)
    }
}

impl Family {
    fn render(&self, name: &str, out: &mut String) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        writeln!(out, "# HELP {name} {}", self.help)?;
        writeln!(out, "# TYPE {name} {kind}")?;
        for (labels, instrument) in &self.series {
            let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            match instrument {
                Instrument::Counter(counter) => writeln!(out, "{name}{braced} {}", counter.get())?,
                Instrument::Gauge(gauge) => writeln!(out, "{name}{braced} {}", gauge.get())?,
                Instrument::Histogram(histogram) => {
                    render_histogram(name, labels, &braced, histogram, out)?;
                }
            }
        }
        Ok(())
    }
}

fn render_histogram(
    name: &str,
    labels: &str,
    braced: &str,
    histogram: &Histogram,
    out: &mut String,
) -> fmt::Result {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut cumulative = 0;
    for (index, count) in histogram.counts().into_iter().enumerate() {
        cumulative += count;
        match histogram.bounds().get(index) {
            Some(le) => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{le}\"}} {cumulative}")?,
            None => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {cumulative}")?,
        }
    }
    writeln!(out, "{name}_sum{braced} {}", histogram.sum())?;
    // From the same reading as the buckets: both must agree.
    writeln!(out, "{name}_count{braced} {cumulative}")
}

/// Sorted, so that the order in which labels are given does not matter.
fn label_text(labels: &[(&str, &str)]) -> String {
    let mut pairs: Vec<(String, String)> =
        labels.iter().map(|(name, value)| (label_name(name), escape(value, true))).collect();
    pairs.sort();
    let pairs: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    pairs.join(",")
}

fn escape(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out
}
