"""What a proxy adds to latency at fixed rates, by an open loop.

The rates are shares of the slowest peer's maximum, so that all are asked for
the same. What the same load takes without a proxy is measured in the same
rounds, and subtracted.
"""

from . import load, stats
from .bench import Crew

SHARES = (0.25, 0.50, 0.75)
PERCENTILES = ("p50", "p99", "p99_9")


def measure(bench, scenario):
    """All rates of one scenario."""
    control = []
    with Crew(bench, scenario, extra=("direct",)) as crew:
        slowest = maximum(bench, crew)
        rates = {f"{share:.0%}": max(1, round(slowest * share)) for share in SHARES}
        bench.say(f"{scenario.name}: slowest maximum {slowest:.0f}/s, rates {rates}")
        for entry in crew.entries:
            entry.extra["rates"] = {label: [] for label in rates}
        for number, order in enumerate(crew.order(bench.options.rounds), 1):
            control.append(bench.sample_control())
            for label, rate in rates.items():
                for entry in order:
                    one_window(bench, scenario, entry, label, rate)
            bench.say(f"{scenario.name}: round {number}: {glance(order)}")
        subtract(crew)
        entries = {entry.name: entry.record() for entry in crew.entries}
        record = crew.record(entries, control, "added p99, us")
        return {**record, "slowest_rps": slowest, "rates": rates}


def maximum(bench, crew):
    """Requests a second of the slowest peer, by two windows of a closed loop."""
    seconds = bench.options.control_seconds
    slowest = []
    for entry in crew.entries:
        if entry.peer == "direct":
            continue
        results = [load.window(bench.tools, entry.command, seconds, 0.2) for _ in range(2)]
        for result in results:
            entry.count(result)
        slowest.append(stats.median([r["requests"] / r["seconds"] for r in results]))
    return min(slowest, default=0.0)


def one_window(bench, scenario, entry, label, rate):
    """One window at one rate."""
    options = bench.options
    result = load.window(
        bench.tools, entry.command, options.seconds, options.warmup, entry.running.pids(), rate
    )
    entry.count(result)
    if result["failed"]:
        bench.failed(
            f"{scenario.name}: {entry.name} at {label}: {result['failed']} failed: "
            f"{result['errors']}"
        )
    found = load.figures(result) or {}
    entry.extra["rates"][label].append({"rate": rate, **found})


def subtract(crew):
    """Adds `added` to each rate of each entry: its percentile less that of the
    load without a proxy, round by round."""
    direct = next((entry for entry in crew.entries if entry.peer == "direct"), None)
    for entry in crew.entries:
        found = {}
        for label, rounds in entry.extra["rates"].items():
            bases = direct.extra["rates"][label] if direct else []
            found[label] = {"measured": {}, "added": {}}
            for key in PERCENTILES:
                values = [round_.get(key) for round_ in rounds]
                found[label]["measured"][key] = stats.summary(values)
                if entry is direct:
                    continue
                added = [
                    round_[key] - base[key]
                    for round_, base in zip(rounds, bases)
                    if key in round_ and key in base
                ]
                found[label]["added"][key] = stats.summary(added)
        entry.extra["latency"] = found


def glance(order):
    """p99 at the middle rate."""
    parts = []
    for entry in sorted(order, key=lambda entry: entry.name):
        last = entry.extra["rates"][f"{SHARES[1]:.0%}"][-1]
        parts.append(f"{entry.name} {last['p99']:.0f}" if "p99" in last else f"{entry.name} -")
    return f"p99 at {SHARES[1]:.0%}: {', '.join(parts)} us"
