//! Rollouts as people read them.

use std::fmt::Write as _;

use weir_mesh::duration;
use weir_mesh::policy::value;
use weir_mesh::rollout::Spec;
use weir_proto::weir::control::v1::analysis::Verdict;
use weir_proto::weir::control::v1::rollout_status::Phase;
use weir_proto::weir::control::v1::{Analysis, Rollout, RolloutStatus};

use crate::Error;
use crate::output::{print_table, table};

/// Columns of the bar of weights.
const BAR: usize = 40;

/// As documents have it: `RolledBack`.
pub(super) fn phase(status: &RolloutStatus) -> &'static str {
    match status.phase() {
        Phase::Unspecified => "?",
        Phase::Progressing => "Progressing",
        Phase::Paused => "Paused",
        Phase::Succeeded => "Succeeded",
        Phase::RolledBack => "RolledBack",
        Phase::Aborted => "Aborted",
    }
}

pub(super) fn is_final(status: &RolloutStatus) -> bool {
    matches!(status.phase(), Phase::Succeeded | Phase::RolledBack | Phase::Aborted)
}

fn time(ms: u64) -> String {
    // Parts of seconds tell nothing of what takes minutes.
    let ms = if ms < 10_000 { ms } else { ms / 1000 * 1000 };
    duration::print(std::time::Duration::from_millis(ms))
}

/// `step 2 of 5, setWeight 10`.
pub(super) fn step(status: &RolloutStatus) -> String {
    if is_final(status) {
        return String::new();
    }
    match status.step_text.as_str() {
        "" => "not begun".to_owned(),
        text => format!("step {} of {}, {text}", status.step + 1, status.steps),
    }
}

pub(super) fn print_list(rollouts: &[Rollout]) -> Result<(), Error> {
    let mut table =
        table(["ROLLOUT", "SERVICE", "FROM", "TO", "WEIGHT", "PHASE", "STEP", "MESSAGE"]);
    for rollout in rollouts {
        let status = rollout.status.clone().unwrap_or_default();
        table.add_row([
            rollout.name.clone(),
            status.service.clone(),
            status.stable.clone(),
            status.canary.clone(),
            format!("{} %", status.weight),
            phase(&status).to_owned(),
            step(&status),
            status.message.clone(),
        ]);
    }
    print_table(&table)
}

/// All of one, on several lines.
pub(super) fn whole(rollout: &Rollout) -> String {
    let status = rollout.status.clone().unwrap_or_default();
    let mut out = String::new();
    let from = if status.stable.is_empty() { "?" } else { &status.stable };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}: {} {from} -> {}, {}",
        rollout.name,
        status.service,
        status.canary,
        phase(&status)
    );
    let filled = (status.weight / 100.0 * BAR as f64).round().clamp(0.0, BAR as f64) as usize;
    let bar = format!("{}{}", "#".repeat(filled), ".".repeat(BAR - filled));
    let _ = writeln!(out, "  {bar}  {} % {}", status.weight, status.canary);
    steps(rollout, &status, &mut out);
    if !status.message.is_empty() {
        let _ = writeln!(out, "  {}", status.message);
    }
    if !status.write_back.is_empty() {
        let _ = writeln!(out, "  written back: {}", status.write_back);
    }
    if let Some(analysis) = &status.analysis {
        metrics(analysis, &mut out);
    }
    let _ = writeln!(
        out,
        "  started {} by {}, ran {}",
        status.start_time,
        status.actor,
        time(status.elapsed_ms)
    );
    out
}

fn steps(rollout: &Rollout, status: &RolloutStatus, out: &mut String) {
    let written = rollout.spec.as_ref().map(value::from_struct).unwrap_or_default();
    // A newer control plane may know steps that this program does not.
    let Ok(spec) = Spec::read(&written, "spec") else { return };
    let begun = !status.step_text.is_empty() || status.phase() == Phase::Succeeded;
    for (i, step) in spec.steps.iter().enumerate() {
        let at = status.step as usize;
        let (mark, took) = match () {
            () if begun && i < at => ("ok", String::new()),
            () if begun && i == at && !is_final(status) => {
                ("->", format!("  {}", time(status.step_elapsed_ms)))
            }
            () => ("  ", String::new()),
        };
        let _ = writeln!(out, "  {mark} {step}{took}");
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unspecified => "-",
        Verdict::NotEnoughData => "not enough data",
        Verdict::Promote => "good enough",
        Verdict::RollBack => "worse",
    }
}

fn metrics(analysis: &Analysis, out: &mut String) {
    let _ = writeln!(
        out,
        "  compared: {} requests of the canary, {} beside them",
        analysis.canary_requests, analysis.baseline_requests
    );
    for metric in &analysis.metrics {
        let said = verdict(metric.verdict());
        let _ = writeln!(out, "     {}: {said}; {}", metric.name, metric.message);
    }
}
