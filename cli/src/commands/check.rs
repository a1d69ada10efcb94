//! `weir check`: is this cluster ready for Weir, and is Weir well in it?

#[cfg(feature = "kubernetes")]
mod ask;
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code))]
mod cluster;
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code))]
mod installed;
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code))]
mod object;
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code))]
mod workloads;

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::Error;
use crate::output::{Format, print, print_table, print_value, table};

/// Arguments of `weir check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Only what must hold before Weir is installed
    #[arg(long)]
    pre: bool,
    /// Where the control plane is, or will be
    #[arg(long, default_value = "weir-system", value_name = "NAMESPACE")]
    control_namespace: String,
    /// Look at the workloads of this namespace alone; may be given several times
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Vec<String>,
    /// A context of the kubeconfig other than the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Exit with 1 also for warnings
    #[arg(long)]
    strict: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Pass,
    Warning,
    Failure,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    outcome: Outcome,
    /// What was looked at.
    what: String,
    /// What was found.
    found: String,
    /// What to do; empty for a pass.
    mend: String,
}

impl Line {
    fn pass(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Outcome::Pass, what, found, "")
    }

    fn warning(what: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Outcome::Warning, what, found, mend)
    }

    fn failure(what: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Outcome::Failure, what, found, mend)
    }

    fn new(
        outcome: Outcome,
        what: impl Into<String>,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { outcome, what: what.into(), found: found.into(), mend: mend.into() }
    }
}

impl Check {
    /// Runs it. The exit code is 1 when a check fails.
    ///
    /// # Errors
    /// No cluster can be asked at all, or standard output is gone.
    pub fn run(self) -> Result<ExitCode, Error> {
        let lines = self.lines()?;
        let worst = lines.iter().map(|line| line.outcome).max().unwrap_or(Outcome::Pass);
        self.print(&lines)?;
        let bad = worst == Outcome::Failure || (self.strict && worst == Outcome::Warning);
        Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    #[cfg(feature = "kubernetes")]
    fn lines(&self) -> Result<Vec<Line>, Error> {
        super::block_on(ask::lines(self))
    }

    #[cfg(not(feature = "kubernetes"))]
    fn lines(&self) -> Result<Vec<Line>, Error> {
        Err(Error::new(
            "this weir was built without Kubernetes; build it with --features kubernetes, or use \
             the one in Weir's image",
        ))
    }

    fn print(&self, lines: &[Line]) -> Result<(), Error> {
        if self.output != Format::Table {
            let line = |line: &Line| {
                json!({
                    "outcome": line.outcome.as_str(),
                    "check": line.what,
                    "found": line.found,
                    "mend": line.mend,
                })
            };
            return print_value(self.output, &Value::from_iter(lines.iter().map(line)));
        }
        let mut table = table(["", "CHECK", "FOUND"]);
        for line in lines {
            let found = match line.mend.as_str() {
                "" => line.found.clone(),
                mend => format!("{}\n-> {mend}", line.found),
            };
            table.add_row([line.outcome.as_str().to_owned(), line.what.clone(), found]);
        }
        print_table(&table)?;
        let count = |outcome| lines.iter().filter(|line| line.outcome == outcome).count();
        print(&format!(
            "\n{} passed, {} warnings, {} failures\n",
            count(Outcome::Pass),
            count(Outcome::Warning),
            count(Outcome::Failure)
        ))
    }
}
