//! `weir shift`, `weir rollback` and `weir history`.

use std::collections::HashMap;

use weir_mesh::model::{ServiceName, VersionName, Weight};
use weir_mesh::wire;
use weir_proto::weir::control::v1::{ListHistoryRequest, Measured, RollbackRequest, ShiftRequest};
use weir_proto::weir::mesh::v1 as pb;

use super::{block_on, print_change, retry};
use crate::Error;
use crate::client::Connect;
use crate::output::{Format, print, print_message, print_table, table};

/// One `VERSION=WEIGHT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionWeight {
    version: VersionName,
    weight: Weight,
}

impl std::str::FromStr for VersionWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (version, weight) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not VERSION=WEIGHT, such as v2=10"))?;
        let version = version.parse().map_err(|error| format!("version: {error}"))?;
        let number: i64 = weight
            .parse()
            .map_err(|_| format!("weight: {weight:?} is no whole number of 0 to 1000000"))?;
        let weight = number.try_into().map_err(|error| format!("weight: {error}"))?;
        Ok(Self { version, weight })
    }
}

/// What `--sticky` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickyBy {
    /// Drop stickiness.
    None,
    /// Stick by this.
    By(pb::Sticky),
}

impl std::str::FromStr for StickyBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let by = match text.split_once(':') {
            None if text == "none" => return Ok(Self::None),
            None if text == "user" => pb::sticky::By::User(true),
            Some(("header", name)) => pb::sticky::By::Header(name.to_owned()),
            Some(("cookie", name)) => pb::sticky::By::Cookie(name.to_owned()),
            _ => {
                return Err(format!("{text:?}: use user, header:NAME, cookie:NAME or none"));
            }
        };
        let sticky = pb::Sticky { by: Some(by) };
        wire::sticky(&sticky, "").map_err(|invalid| invalid.to_string())?;
        Ok(Self::By(sticky))
    }
}

/// Arguments of `weir shift`.
#[derive(Debug, clap::Args)]
pub struct Shift {
    /// The service
    service: ServiceName,
    /// Weights by version; parts of their sum. Versions that are not named get 0
    #[arg(required = true, value_name = "VERSION=WEIGHT")]
    weights: Vec<VersionWeight>,
    /// Keep each user on one version: user, header:NAME, cookie:NAME; or none
    #[arg(long, value_name = "BY")]
    sticky: Option<StickyBy>,
    /// Answer when every live router has applied it
    #[arg(long)]
    wait: bool,
    /// Goes into the history
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Let weights name versions that have no instance yet
    #[arg(long)]
    allow_empty: bool,
    /// Refuse unless the service's last revision is this one
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    expected_revision: u32,
    /// Wait, then count requests for so many seconds (1 to 60) and say how they were
    /// split
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=60))]
    confirm: Option<u32>,
    /// Makes a retry of this command safe: a second one with the same key changes
    /// nothing and prints what the first did
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Also when somebody else manages the weights
    #[arg(long)]
    force: bool,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl Shift {
    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub fn run(self) -> Result<(), Error> {
        let weights = weights(&self.weights)?;
        let shown: Vec<_> = self
            .weights
            .iter()
            .map(|pair| format!("{}={}", pair.version, pair.weight.get()))
            .collect();
        let what = format!("{} {}", self.service, shown.join(" "));
        let (sticky, clear_sticky) = match self.sticky {
            None => (None, false),
            Some(StickyBy::None) => (None, true),
            Some(StickyBy::By(sticky)) => (Some(sticky), false),
        };
        let request = ShiftRequest {
            service: self.service.to_string(),
            weights,
            sticky,
            clear_sticky,
            wait: self.wait,
            wait_seconds: 0,
            reason: self.reason,
            expected_revision: self.expected_revision,
            allow_empty: self.allow_empty,
            idempotency_key: retry::key(self.idempotency_key),
            confirm: self.confirm.is_some(),
            confirm_seconds: self.confirm.unwrap_or_default(),
            force: self.force,
        };
        let change = block_on(retry::call(&self.connect, |mut client| {
            let request = request.clone();
            async move { client.shift(request).await }
        }))?;
        let printed = print_change(self.connect.output, &what, &change);
        if let Some(measured) = change.measured.filter(|_| self.connect.output == Format::Table) {
            print_measured(&measured)?;
        }
        printed
    }
}

/// How requests were split, beside what was asked for.
fn print_measured(measured: &Measured) -> Result<(), Error> {
    if measured.requests == 0 {
        return print(&format!(
            "no requests in {:.0} s, so there is nothing to confirm the split by\n",
            measured.seconds
        ));
    }
    let mut table = table(["VERSION", "EXPECTED", "MEASURED", "REQUESTS", "FAILURES"]);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    for version in &measured.versions {
        table.add_row([
            version.version.clone(),
            percent(version.expected),
            percent(version.share),
            version.requests.to_string(),
            version.failures.to_string(),
        ]);
    }
    print_table(&table)
}

fn weights(pairs: &[VersionWeight]) -> Result<HashMap<String, i32>, Error> {
    let mut weights = HashMap::new();
    for pair in pairs {
        let weight = i32::try_from(pair.weight.get()).unwrap_or(i32::MAX);
        if weights.insert(pair.version.to_string(), weight).is_some() {
            return Err(Error::new(format!("version {} is named twice", pair.version)));
        }
    }
    Ok(weights)
}

/// Arguments of `weir rollback`.
#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// The service
    service: ServiceName,
    /// The revision to go back to; default: the state before the last change
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    to: u32,
    /// Answer when every live router has applied it
    #[arg(long)]
    wait: bool,
    /// Goes into the history
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Refuse unless the service's last revision is this one
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    expected_revision: u32,
    /// Makes a retry of this command safe: a second one with the same key changes
    /// nothing and prints what the first did
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Also when somebody else manages the weights
    #[arg(long)]
    force: bool,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl Rollback {
    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub fn run(self) -> Result<(), Error> {
        let what = format!("{} rolled back", self.service);
        let request = RollbackRequest {
            service: self.service.to_string(),
            to: self.to,
            wait: self.wait,
            wait_seconds: 0,
            reason: self.reason,
            idempotency_key: retry::key(self.idempotency_key),
            expected_revision: self.expected_revision,
            force: self.force,
        };
        let change = block_on(retry::call(&self.connect, |mut client| {
            let request = request.clone();
            async move { client.rollback(request).await }
        }))?;
        print_change(self.connect.output, &what, &change)
    }
}

/// Arguments of `weir history`.
#[derive(Debug, clap::Args)]
pub struct History {
    /// Only changes to this service
    service: Option<ServiceName>,
    /// Only changes to this object: route/NAME, policy/KIND/NAME, rollout/NAME, ...
    #[arg(long, conflicts_with = "service", default_value = "", hide_default_value = true)]
    object: String,
    /// How many, newest first: 1 to 1000
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub connect: Connect,
}

impl History {
    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub fn run(self) -> Result<(), Error> {
        let request = ListHistoryRequest {
            service: self.service.map(|name| name.to_string()).unwrap_or_default(),
            limit: self.limit,
            object: self.object,
        };
        let answer = block_on(async {
            Ok(self.connect.client().await?.list_history(request).await?.into_inner())
        })?;
        let format = self.connect.output;
        if format != Format::Table {
            return print_message(format, "weir.control.v1.ListHistoryResponse", &answer);
        }
        let mut table = table(["REVISION", "TIME", "WHO", "ACTION", "CHANGE", "REASON"]);
        for entry in answer.entries {
            let changes = if entry.changes.is_empty() { &entry.objects } else { &entry.changes };
            table.add_row([
                entry.revision.to_string(),
                entry.time.clone(),
                entry.actor.clone(),
                entry.action.clone(),
                changes.join("\n"),
                entry.reason.clone(),
            ]);
        }
        print_table(&table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read() {
        let pair: VersionWeight = "v2=10".parse().unwrap();
        assert_eq!((pair.version.as_str(), pair.weight.get()), ("v2", 10));
        for (text, wanted) in [
            ("v2", "is not VERSION=WEIGHT"),
            ("v2=", "is no whole number"),
            ("v2=1.5", "is no whole number"),
            ("v2=-1", "-1 is below 0"),
            ("v2=1000001", "1000001 is above 1000000"),
            ("V2=1", "is not a DNS label"),
            ("=1", "version: is empty"),
        ] {
            let error = text.parse::<VersionWeight>().unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn a_version_is_named_once() {
        let pairs: Vec<VersionWeight> = ["v1=1", "v1=2"].map(|text| text.parse().unwrap()).into();
        assert!(weights(&pairs).is_err());
    }

    #[test]
    fn sticky_is_read() {
        assert_eq!("none".parse(), Ok(StickyBy::None));
        assert!("user".parse::<StickyBy>().is_ok());
        assert!("header:x-user".parse::<StickyBy>().is_ok());
        assert!("cookie:session".parse::<StickyBy>().is_ok());
        assert!("header:".parse::<StickyBy>().is_err());
        assert!("address".parse::<StickyBy>().is_err());
    }
}
