"""A second opinion: wrk, h2load and ghz against the same peers.

wrk checks status and body by a script; h2load checks HTTP status alone; ghz
reads messages and gRPC status. CPU is read here, before and after each.
"""

import dataclasses
import json
import re
import subprocess

from . import load, procs, report, scenarios
from .bench import Crew
from .tools import ROOT

DIRECTORY = ROOT / "bench" / "cross-check"
# See bench.proto.
GRPC_BYTES = 118
NAMES = ("http1-c64", "grpc-16x16")


def run(bench):
    """Runs all that is there; gives the exit code."""
    for name in NAMES:
        scenario = scenarios.chosen([name])[0]
        if scenario.protocol == "grpc":
            scenario = dataclasses.replace(scenario, bytes=GRPC_BYTES)
        with Crew(bench, scenario) as crew:
            rows = []
            for label, tool in TOOLS[scenario.protocol].items():
                if not bench.tools[label]:
                    rows.append([label, *("-" for _ in crew.entries)])
                    continue
                cells = []
                for entry in crew.entries:
                    bench.say(f"{name}: {label}: {entry.name}")
                    cells.append(one(bench, scenario, label, tool, entry))
                rows.append([label, *cells])
            print(f"{name}: requests/s (bad answers), CPU us/request")
            print(report.table(["", *(entry.name for entry in crew.entries)], rows) + "\n")
    for failure in bench.failures:
        print(failure)
    return 1 if bench.failures else 0


def one(bench, scenario, label, tool, entry):
    """A cell."""
    pids = entry.running.pids()
    before = procs.cpu_seconds(pids)
    try:
        rate, requests, bad = tool(bench, scenario, entry)
    except (procs.Failed, ValueError, TypeError, AttributeError) as error:
        bench.failed(f"{scenario.name}: {label}: {entry.name}: {error}")
        return "failed"
    if bad:
        bench.failed(f"{scenario.name}: {label}: {entry.name}: {bad} bad answers")
    each = 1e6 * (procs.cpu_seconds(pids) - before) / max(requests, 1)
    return f"{report.number(rate)} ({bad}), {report.number(each)}"


def said(bench, command):
    """What a program prints to standard output."""
    seconds = bench.options.seconds + load.GRACE
    done = subprocess.run(load.pinned(command), capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise procs.Failed(f"{command[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout


def weir_bench(bench, scenario, entry):
    """Ours."""
    result = load.window(bench.tools, entry.command, bench.options.seconds, 0)
    return result["requests"] / result["seconds"], result["requests"], result["failed"]


def wrk(bench, scenario, entry):
    """wrk with one thread."""
    seconds = max(1, round(bench.options.seconds))
    command = [bench.tools["wrk"], "-t1", f"-c{scenario.connections}", f"-d{seconds}s"]
    command += ["-s", DIRECTORY / "check.lua", f"http://{entry.running.target}/", "--"]
    text = said(bench, [*command, scenario.bytes])
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    counted = re.search(r"checked: (\d+) requests, (\d+) bad", text)
    return float(rate[1]), int(counted[1]), int(counted[2])


def h2load(bench, scenario, entry):
    """h2load with one thread: an empty gRPC message for each request."""
    message = bench.place("h2load") / "message"
    message.write_bytes(bytes(5))
    seconds = max(1, round(bench.options.seconds))
    command = [bench.tools["h2load"], "-D", seconds, "-c", scenario.connections]
    command += ["-m", scenario.streams, "-t1", "-d", message, "-H", f":authority: {load.AUTHORITY}"]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    text = said(bench, [*command, f"http://{entry.running.target}/bench.v1.Bench/Unary"])
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", text)
    counts = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", text)
    other = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    done = re.search(r"requests: \d+ total, \d+ started, (\d+) done", text)
    bad = sum(int(n) for n in (*counts.groups(), *other.groups()))
    return float(rate[1]), int(done[1]), bad


def ghz(bench, scenario, entry):
    """ghz: its own gRPC client, many times slower than a proxy."""
    workers = scenario.connections * scenario.streams
    command = [bench.tools["ghz"], "--insecure", "--proto", DIRECTORY / "bench.proto"]
    command += ["--call", "bench.v1.Bench/Unary", "-d", "{}", "-c", workers]
    command += ["--connections", scenario.connections, "-z", f"{bench.options.seconds}s"]
    command += ["--duration-stop", "wait", "--authority", load.AUTHORITY, "-O", "json"]
    found = json.loads(said(bench, [*command, entry.running.target]))
    codes = found.get("statusCodeDistribution") or {}
    bad = sum(count for code, count in codes.items() if code != "OK")
    return found["rps"], found["count"], bad


TOOLS = {
    "http1": {"weir-bench": weir_bench, "wrk": wrk},
    "grpc": {"weir-bench": weir_bench, "h2load": h2load, "ghz": ghz},
}
