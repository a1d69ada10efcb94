//! Numbers and durations of a spec, each within its bounds.

use std::fmt::Display;
use std::time::Duration;

use crate::duration;
use crate::model::Violations;
use crate::policy::value::DurationText;

/// Longest of all durations here.
const HOUR: Duration = Duration::from_secs(3600);

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
        match field.is_empty() || field.starts_with('[') {
            true => format!("{}{field}", self.at),
            false => format!("{}.{field}", self.at),
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

    pub fn number(
        &mut self,
        field: &str,
        sent: Option<u32>,
        default: u32,
        min: u32,
        max: u32,
    ) -> u32 {
        let value = sent.unwrap_or(default);
        if value < min {
            self.bad(field, format_args!("{value} is below {min}; use {min} to {max}"));
        } else if value > max {
            self.bad(field, format_args!("{value} is above {max}; use {min} to {max}"));
        }
        value
    }

    /// At least `min`, at most an hour.
    pub fn time(
        &mut self,
        field: &str,
        sent: Option<DurationText>,
        default: Duration,
        min: Duration,
    ) -> Duration {
        let value = sent.map_or(default, |text| text.0);
        if value < min || value > HOUR {
            let (shown, min) = (duration::print(value), duration::print(min));
            self.bad(field, format_args!("{shown} is not possible; use {min} to 1h"));
        }
        value
    }
}
