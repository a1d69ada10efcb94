"""weir-bench: upstreams and load, on the core that proxies are not on."""

import json
import subprocess
import shutil

from . import procs
from .peer import local

# Beyond a window and its warm-up, for answers that are slow to come.
GRACE = 30
AUTHORITY = "bench"


def pinned(command):
    """On the core of the load."""
    pin = [shutil.which("taskset"), "-c", procs.LOAD_CORE] if shutil.which("taskset") else []
    return [str(part) for part in (*pin, *command)]


def upstream(tools, name, protocol, size, directory):
    """Starts an upstream: (process, IP:PORT)."""
    listen = local(procs.free_port())
    http = "http1" if protocol == "http1" else "http2"
    command = [tools["weir-bench"], "upstream", "--listen", listen, "--protocol", http]
    command += ["--body-bytes", size, "--name", name]
    process = procs.Process(f"upstream-{name}", command, procs.LOAD_CORE, directory)
    process.wait_listening(listen)
    return process, listen


def catalogue(tools, directory):
    """Starts the built-in catalogue with a dozen products: (process, IP:PORT)."""
    listen = local(procs.free_port())
    command = [tools["weir"], "service", "products", "--listen", listen, "--seed"]
    command += ["--data", directory / "catalogue", "--log-level", "warn"]
    process = procs.Process("catalogue", command, procs.LOAD_CORE, directory)
    process.wait_listening(listen)
    return process, listen


def arguments(scenario, target, path=None):
    """What `weir-bench load` is told of a scenario."""
    protocol = scenario.load or scenario.protocol
    command = ["load", "--target", target, "--authority", AUTHORITY, "--protocol", protocol]
    command += ["--connections", scenario.connections, "--streams", scenario.streams]
    if scenario.site == "gateway":
        # Path and body come with `gateway.prepare`.
        return command
    if scenario.upload:
        command += ["--upload", "--request-bytes", scenario.bytes]
    else:
        command += ["--response-bytes", scenario.bytes]
        if path:
            command += ["--path", path]
    if scenario.messages:
        command += ["--messages", scenario.messages]
    if scenario.churn:
        command += ["--churn"]
    return command


def run(tools, command, seconds):
    """Runs a verb of weir-bench that ends by itself after about `seconds`, and
    gives what it printed."""
    command = pinned([tools["weir-bench"], *command])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE)
    except subprocess.TimeoutExpired:
        raise procs.Failed(f"no end after {seconds + GRACE:.0f} s: {' '.join(command)}") from None
    if done.returncode:
        raise procs.Failed(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def window(tools, command, seconds, warmup, pids=(), rate=None):
    """One window of load; see weir-bench for what comes back."""
    command = [*command, "--seconds", seconds, "--warmup", warmup]
    if pids:
        command += ["--pid-cpu", ",".join(str(pid) for pid in pids)]
    if rate:
        command += ["--rate", rate]
    return run(tools, command, seconds + warmup)


def figures(result, sent=0):
    """What a window says for each request, of which each sent a body of `sent`
    bytes; None where nothing was answered.

    CPU is in microseconds a request, latency in microseconds, `busy` the share
    of the window that the proxies' core was at work, `rps_core` what a core
    that is always at work would answer.
    """
    requests, seconds = result["requests"], result["seconds"]
    if not requests:
        return None
    used = list(result.get("pids", {}).values())
    cpu = sum(one["cpu_seconds"] for one in used)
    user = sum(one["user_seconds"] for one in used)
    system = sum(one["system_seconds"] for one in used)
    switches = sum(one["voluntary_switches"] + one["involuntary_switches"] for one in used)
    # Ticks give the ratio, the scheduler's clock the sum.
    share = user / (user + system) if user + system else 0.0
    moved = result["bytes"] + sent * requests
    latency = result["latency_us"]
    found = {
        "rps": requests / seconds,
        "p50": latency["p50"],
        "p99": latency["p99"],
        "p99_9": latency["p99_9"],
        "bytes_per_second": moved / seconds,
    }
    counted = result.get("upstreams") or {}
    if sum(counted.values()):
        found["v2_share"] = counted.get("v2", 0) / sum(counted.values())
    if cpu:
        found |= {
            "cpu_us": 1e6 * cpu / requests,
            "user_us": 1e6 * cpu * share / requests,
            "system_us": 1e6 * cpu * (1 - share) / requests,
            "busy": cpu / seconds,
            "rps_core": requests / cpu,
            "switches": switches / requests,
            "bytes_per_cpu_second": moved / cpu,
        }
    return found
