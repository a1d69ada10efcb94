"""Rounds of a closed loop: CPU per request and what comes with it."""

import contextlib

from . import load, stats, syscalls
from .bench import Crew
from .disturb import Disturbance

METRICS = (
    "cpu_us", "user_us", "system_us", "rps", "rps_core", "busy", "p50", "p99", "p99_9",
    "switches", "bytes_per_second", "bytes_per_cpu_second", "v2_share",
)


def measure(bench, scenario):
    """All rounds of one scenario."""
    control = []
    with Crew(bench, scenario) as crew:
        first_windows(bench, crew)
        for number, order in enumerate(crew.order(bench.options.rounds), 1):
            control.append(bench.sample_control())
            for entry in order:
                one_window(bench, scenario, entry)
            bench.say(f"{scenario.name}: round {number}: {glance(order)}")
        for entry in crew.entries:
            entry.extra["syscalls"] = syscalls.per_request(bench, entry)
            entry.running.check()
        if not any(value is not None for value in control) and crew.entries:
            # Without nginx the first peer is the control.
            control = [round_["cpu_us"] for round_ in crew.entries[0].rounds]
        entries = {entry.name: entry.record(**summaries(entry)) for entry in crew.entries}
        return crew.record(entries, control, "CPU us/request")


def first_windows(bench, crew):
    """A short window for each, so that none meets its first round cold."""
    for entry in crew.entries:
        result = load.window(bench.tools, entry.command, bench.options.warmup, 0)
        entry.count(result)
        if result["failed"]:
            bench.failed(f"{crew.scenario.name}: {entry.name}: warming up: {result['errors']}")


def one_window(bench, scenario, entry):
    """One window of one entry."""
    disturbed = bool(scenario.disturb) and entry.variant == scenario.disturb
    around = Disturbance(entry.running, scenario.disturb) if disturbed else None
    options = bench.options
    with around or contextlib.nullcontext():
        result = load.window(
            bench.tools, entry.command, options.seconds, options.warmup, entry.running.pids()
        )
    entry.count(result)
    if result["failed"]:
        bench.failed(
            f"{scenario.name}: {entry.name}: {result['failed']} failed: {result['errors']}"
        )
    found = load.figures(result, scenario.bytes if scenario.upload else 0)
    if found is None:
        return
    if around:
        found["changes"] = around.changes
    elif scenario.site == "pair" and entry.peer == "weir":
        check_split(bench, scenario, entry, result)
    entry.rounds.append(found)


def check_split(bench, scenario, entry, result):
    """Weir's split is exact; a window sees requests that began before it, and
    does not see the end of those that it ends in."""
    counted = result["upstreams"]
    total = sum(counted.values())
    off = abs(counted.get("v2", 0) - total / 10)
    allowed = 2 * scenario.connections * scenario.streams + 2
    entry.extra["split_off"] = max(off, entry.extra.get("split_off", 0))
    if off > allowed:
        text = f"{counted} is {off:.0f} requests off 90/10 (at most {allowed})"
        entry.notes.append(text)
        bench.failed(f"{scenario.name}: {entry.name}: {text}")


def summaries(entry):
    """Medians and intervals of all rounds, and the rounds."""
    found = {}
    for metric in METRICS:
        values = [round_[metric] for round_ in entry.rounds if metric in round_]
        if values:
            found[metric] = stats.summary(values)
    return {"summary": found, "rounds": entry.rounds}


def glance(order):
    """One figure of each, for a line of progress."""
    parts = []
    for entry in sorted(order, key=lambda entry: entry.name):
        value = entry.rounds[-1].get("cpu_us") if entry.rounds else None
        parts.append(f"{entry.name} {value:.1f}" if value else f"{entry.name} -")
    return ", ".join(parts) + " us"
