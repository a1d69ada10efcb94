//! Simulated canaries, judged thousands of times: how often the verdicts of
//! `weir_mesh::analysis` are wrong, and how long they take, beside a fixed
//! threshold that is looked at every minute.

mod naive;
mod scenario;
mod tally;
mod traffic;

use serde::Serialize;
use weir_mesh::analysis::{Analysis, Decision, Draft, LatencyCheck, Plan, SuccessCheck};

use scenario::{SCENARIOS, Scenario};
use tally::{Outcome, Run, Tally, Verdict};
use traffic::{Latencies, Traffic};

/// What `weir-bench analysis` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Simulated rollouts of each scenario
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    runs: u32,
    /// Odds of failing that the canary may have, as a multiple of the baseline's
    #[arg(long, default_value_t = 1.0)]
    tolerance_ratio: f64,
    /// Only this scenario; may be repeated
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
}

/// What came of it.
#[derive(Serialize)]
pub struct Report {
    runs: u32,
    plan: Draft,
    naive: naive::Limits,
    scenarios: Vec<Row>,
}

/// One scenario.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    about: &'static str,
    /// Which verdict would be wrong.
    wrong_is: Verdict,
    /// Most probability of it that the plan states; none where its assumptions do
    /// not hold.
    stated: Option<f64>,
    /// Requests per second to the canary, on average over the first minute.
    canary_per_second: f64,
    /// Seconds after which a run is given up.
    limit: u32,
    weir: Outcome,
    naive: Outcome,
}

/// The plan that all scenarios are judged by.
fn draft(tolerance_ratio: f64) -> Draft {
    Draft {
        alpha: 0.01,
        beta: 0.01,
        min_requests: 100,
        success: Some(SuccessCheck { tolerance_ratio, margin: 0.005 }),
        latency: vec![
            LatencyCheck { quantile: 0.5, tolerance: 0.1, margin: 0.05 },
            LatencyCheck { quantile: 0.99, tolerance: 0.1, margin: 0.005 },
        ],
    }
}

/// Runs the scenarios.
///
/// # Errors
/// A scenario that does not exist.
pub fn run(options: &Options) -> Result<Report, String> {
    for name in &options.scenario {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            return Err(format!("no scenario {name:?}; there are {}", names.join(", ")));
        }
    }
    let draft = draft(options.tolerance_ratio);
    let plan = Plan::new(draft.clone()).map_err(|e| e.to_string())?;
    let latencies = Latencies::new();
    let wanted = |scenario: &&Scenario| {
        options.scenario.is_empty() || options.scenario.iter().any(|name| name == scenario.name)
    };
    let rows = SCENARIOS.iter().filter(wanted).map(|scenario| {
        eprintln!("{}: {}", scenario.name, scenario.about);
        row(scenario, options.runs, &plan, &latencies)
    });
    let scenarios = rows.collect();
    Ok(Report { runs: options.runs, plan: draft, naive: naive::LIMITS, scenarios })
}

fn row(scenario: &Scenario, runs: u32, plan: &Plan, latencies: &Latencies) -> Row {
    let mut weir = Tally::new(scenario.wrong_is());
    let mut naive = Tally::new(scenario.wrong_is());
    for number in 0..runs {
        // The same seeds each time, and others for each scenario.
        let seed = scenario.seed() ^ u64::from(number);
        weir.add(rollout(scenario, plan, latencies, seed));
        naive.add(naive::rollout(scenario, seed));
    }
    let stated = match scenario.wrong_is() {
        Verdict::RolledBack => plan.parts().alpha,
        _ => plan.parts().beta,
    };
    Row {
        name: scenario.name,
        about: scenario.about,
        wrong_is: scenario.wrong_is(),
        stated: (scenario.clump == 1).then_some(stated),
        canary_per_second: scenario.canary_per_second(),
        limit: scenario.limit,
        weir: weir.outcome(),
        naive: naive.outcome(),
    }
}

/// One rollout, looked at after every interval.
fn rollout(scenario: &Scenario, plan: &Plan, latencies: &Latencies, seed: u64) -> Run {
    let mut traffic = Traffic::new(scenario, latencies, seed);
    let mut analysis = Analysis::new(plan.clone());
    let mut first: Option<Run> = None;
    while traffic.seconds() < scenario.limit {
        traffic.next(|stratum| analysis.observe(stratum));
        let verdict = match analysis.verdict() {
            Decision::RollBack { .. } => Verdict::RolledBack,
            Decision::Promote => Verdict::Promoted,
            Decision::NotEnough { .. } => continue,
        };
        let run =
            Run { verdict, seconds: traffic.seconds(), canary_requests: traffic.canary_requests() };
        if !scenario.watched || verdict == Verdict::RolledBack {
            return run;
        }
        first.get_or_insert(run);
    }
    first.unwrap_or(Run {
        verdict: Verdict::Undecided,
        seconds: traffic.seconds(),
        canary_requests: traffic.canary_requests(),
    })
}
