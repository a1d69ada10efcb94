"""The command line of bench/run."""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile

from . import closed, crosscheck, footprint, goals, latency, load, plot, procs, report, scenarios
from . import stats, tools
from .bench import Bench, Options

RESULTS = tools.ROOT / "bench" / "results"
HOW = {
    "closed": closed.measure,
    "latency": latency.measure,
    "idle": footprint.idle,
    "memory": footprint.memory,
    "start": footprint.start,
    "size": footprint.size,
}


def parser():
    """What can be asked for."""
    made = argparse.ArgumentParser(
        prog="bench/run",
        description="Measures Weir's data plane beside nginx, HAProxy and Envoy.",
        epilog="bench/README.md explains the method. Exit code: 0 all was measured and nothing "
        "failed; 1 something failed; 2 nothing could be measured.",
    )
    add = made.add_argument
    add("--scenario", action="append", metavar="GLOB", help="only scenarios like this; repeatable")
    add("--peers", default="weir,nginx,haproxy,envoy", help="comma list (default: %(default)s)")
    add("--rounds", type=int, help="rounds of each scenario (default: 10)")
    add("--seconds", type=float, help="of each window (default: 3)")
    add("--quick", action="store_true", help="4 rounds of 0.5 s: for a look, not for figures")
    add("--out", type=pathlib.Path, metavar="DIR",
        help="where results go (default: bench/results; with --quick a temporary directory)")
    add("--list", action="store_true", help="list scenarios and end")
    add("--build", action="store_true", help="build Weir's programs first")
    add("--from", dest="again", type=pathlib.Path, metavar="FILE",
        help="print and plot an earlier results.json again; measure nothing")
    add("--cross-check", action="store_true",
        help="instead: the same peers by wrk, h2load and ghz, beside weir-bench")
    return made


def options(arguments):
    """Options of the run."""
    chosen = Options(peers=tuple(name for name in arguments.peers.split(",") if name))
    if unknown := [name for name in chosen.peers if name not in Options.peers]:
        raise ValueError(f"--peers: {', '.join(unknown)}: there are {', '.join(Options.peers)}")
    if arguments.quick:
        chosen.rounds, chosen.seconds, chosen.warmup = 4, 0.5, 0.2
        chosen.control_seconds, chosen.settle = 0.3, 10.0
    if arguments.rounds is not None:
        chosen.rounds = arguments.rounds
    if arguments.seconds is not None:
        chosen.seconds = arguments.seconds
    if not 1 <= chosen.rounds <= 1000 or not 0.1 <= chosen.seconds <= 600:
        raise ValueError("--rounds: 1 to 1000; --seconds: 0.1 to 600")
    return chosen


def main(arguments=None):
    """Runs; gives the exit code."""
    arguments = parser().parse_args(arguments)
    try:
        chosen = scenarios.chosen(arguments.scenario)
        run_options = options(arguments)
    except ValueError as error:
        print(f"bench/run: {error}", file=sys.stderr)
        return 2
    if arguments.list:
        for scenario in scenarios.ALL:
            print(f"{scenario.name:<20} {scenario.title}")
        return 0
    if arguments.again:
        return again(arguments)
    if arguments.build and not tools.build():
        print("bench/run: the build failed", file=sys.stderr)
        return 2
    found = tools.Tools()
    for line in found.missing():
        print(f"bench/run: {line}", file=sys.stderr)
    if not found["weir-bench"]:
        print("bench/run: without weir-bench there is no load", file=sys.stderr)
        return 2
    if not shutil.which("taskset") or procs.PROXY_CORE == procs.LOAD_CORE:
        print("bench/run: proxies and load share a core here: all figures are void",
              file=sys.stderr)
    if os.getloadavg()[0] > 0.5:
        print(f"bench/run: the load is {os.getloadavg()[0]:.1f} before anything has begun: others "
              "are at work here, and figures may be void", file=sys.stderr)
    # So that `finally` runs, and nothing is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with Bench(found, run_options) as bench:
            if arguments.cross_check:
                return crosscheck.run(bench)
            return measure(bench, chosen, arguments, out(arguments))
    except procs.Failed as error:
        print(f"bench/run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench/run: stopped", file=sys.stderr)
        return 1


def out(arguments):
    """Where results go."""
    if arguments.out:
        return arguments.out
    if arguments.quick:
        return pathlib.Path(tempfile.mkdtemp(prefix="weir-bench-quick-"))
    return RESULTS


def again(arguments):
    """Prints an earlier run."""
    results = json.loads(arguments.again.read_text())
    for scenario in results["scenarios"]:
        print(report.scenario_table(scenario))
    results["goals"] = list(goals.evaluate(results))
    print(report.goals_table(results["goals"]))
    if arguments.out:
        save(results, arguments.out)
    return 0


def measure(bench, chosen, arguments, where):
    """Measures, prints and writes."""
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "revision": tools.revision(),
        "machine": tools.machine(),
        "versions": bench.tools.versions(),
        "builds": {name: str(bench.tools[name].parent.name)
                   for name in tools.WEIR if bench.tools[name]},
        "options": vars(bench.options),
        "load_before": os.getloadavg()[0],
        "scenarios": [],
    }
    if any(scenario.how in ("closed", "latency") for scenario in chosen):
        bench.start_control()
    if any(scenario.name == "pair-body-16m" for scenario in chosen):
        results["aes"] = load.run(bench.tools, ["aes"], 5)
    for scenario in chosen:
        bench.say(f"{scenario.name}: {scenario.title}")
        try:
            found = HOW[scenario.how](bench, scenario)
        except procs.Failed as error:
            bench.failed(f"{scenario.name}: {error}")
            continue
        if procs.PROXY_CORE == procs.LOAD_CORE:
            found["void"] = "proxies and load share a core"
        results["scenarios"].append(found)
        print(report.scenario_table(found), flush=True)
        # What was measured is kept, whatever comes after it.
        results["goals"] = list(goals.evaluate(results))
        results["control"] = control(results)
        results["failures"] = bench.failures
        save(results, where)
    # Of a part of the scenarios, only what it has measured.
    shown = [row for row in results.get("goals", []) if row["void"] or row["measured"] is not None]
    if shown:
        print(report.goals_table(shown))
    print_end(bench, results, where)
    return 1 if bench.failures else 0


def control(results):
    """The control over the whole run."""
    values = [value for scenario in results["scenarios"] for value in scenario["control"]]
    return {"moved": stats.movement(values), "void": stats.void(values)}


def save(results, where):
    """Writes JSON and plots."""
    where.mkdir(parents=True, exist_ok=True)
    report.write_json(results, where / "results.json")
    for scenario in results["scenarios"]:
        if drawn := plot.draw(scenario):
            (where / f"{scenario['name']}.svg").write_text(drawn)


def print_end(bench, results, where):
    """What to know of the run as a whole."""
    whole = results.get("control") or {}
    if whole.get("void"):
        print(f"\nOver the whole run {whole['void']}: compare within scenarios only.")
    print(f"\nResults and plots: {where}")
    if bench.failures:
        print(f"{len(bench.failures)} failures:")
        for failure in bench.failures[:20]:
            print(f"  {failure}")
        print(f"Logs: {bench.directory}")
