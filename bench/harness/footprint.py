"""Memory, start and size: what a proxy costs while it has nothing to do."""

import json
import pathlib
import shutil
import subprocess
import time

from . import load, procs, stats
from .bench import Crew, Entry
from .peer import Site

CONNECTIONS = 1000
# A burst: so many connections for this long.
BURST = 256
BURST_SECONDS = 2.0
# What is idle has had nothing to do for this long.
REST = 10.0


def idle(bench, scenario):
    """Resident memory before, with 1,000 idle connections, and after a burst.

    For a pair it is that of the sidecar whose inbound listener is held.
    """
    with Crew(bench, scenario) as crew:
        for entry in crew.entries:
            time.sleep(REST)
            entry.extra["before"] = procs.memory(held(entry))
            opened = hold(bench, crew, entry)
            entry.extra |= {"connections": opened}
            burst(bench, crew, entry)
            bench.say(f"{scenario.name}: {entry.name}: {told(entry)}")
        # One wait for all: nothing happens meanwhile.
        bench.say(f"{scenario.name}: {bench.options.settle:.0f} s of rest")
        time.sleep(bench.options.settle)
        for entry in crew.entries:
            extra = entry.extra
            extra["after"] = procs.memory(held(entry))
            extra["settle_seconds"] = bench.options.settle
            grown = extra["with"]["rss"] - extra["before"]["rss"]
            extra["rss_per_1000"] = grown * 1000 / extra["connections"]
            extra["after_ratio"] = extra["after"]["rss"] / extra["before"]["rss"]
            entry.running.check()
        entries = {entry.name: entry.record() for entry in crew.entries}
        return crew.record(entries, [], "MiB per 1,000 connections")


def held(entry):
    """The processes that hold the connections: of a pair, the sidecar of v1."""
    proxies = entry.running.proxies
    return proxies[1 if entry.running.inbound else 0].pids()


def hold(bench, crew, entry):
    """Opens idle connections, looks, and closes them; gives how many there were."""
    running, place = entry.running, bench.place("idle")
    until = place / "close"
    protocol = crew.scenario.load or "http1"
    command = [bench.tools["weir-bench"], "idle", "--protocol", protocol]
    command += ["--target", running.inbound or running.target, "--authority", load.AUTHORITY]
    command += ["--connections", CONNECTIONS, "--hold-file", until]
    command += ["--response-bytes", crew.scenario.bytes]
    if running.client:
        for name, path in running.client.items():
            command += [f"--mtls-{name}", path]
    process = procs.Process("idle", command, procs.LOAD_CORE, place)

    def opened():
        lines = process.log.read_text(errors="replace").splitlines()
        return next((json.loads(line) for line in lines if line.startswith('{"open"')), None)

    try:
        count = process.wait_until(opened, "holding its connections")["open"]
        time.sleep(REST)
        entry.extra["with"] = procs.memory(held(entry))
    finally:
        until.write_text("")
        process.wait_until(lambda: not process.alive(), "closing its connections")
    said = json.loads(process.log.read_text().strip().splitlines()[-1])
    if said.get("failed") or said.get("closed_early"):
        entry.failed += said["failed"] + said["closed_early"]
        bench.failed(f"{crew.scenario.name}: {entry.name}: {said}")
    return count


def burst(bench, crew, entry):
    """Load of many connections, which memory must come back from."""
    command = list(entry.command)
    command[command.index("--connections") + 1] = BURST
    command[command.index("--protocol") + 1] = crew.scenario.protocol
    result = load.window(bench.tools, command, BURST_SECONDS, 0)
    entry.count(result)
    if result["failed"]:
        bench.failed(f"{crew.scenario.name}: {entry.name}: burst: {result['errors']}")


def told(entry):
    """For a line of progress."""
    before, during = (entry.extra[key]["rss"] / 2**20 for key in ("before", "with"))
    return f"{before:.1f} MiB, with {entry.extra['connections']} connections {during:.1f} MiB"


def memory(bench, scenario):
    """Resident memory of one proxy without anything to do."""
    with Crew(bench, scenario) as crew:
        time.sleep(REST)
        for entry in crew.entries:
            entry.extra["memory"] = procs.memory(entry.running.pids())
        entries = {entry.name: entry.record() for entry in crew.entries}
        return crew.record(entries, [], "MiB")


def start(bench, scenario):
    """Milliseconds from the start of a process to its first proxied answer."""
    crew = Crew(bench, scenario)
    place = bench.place("start-upstream")
    upstream, address = load.upstream(bench.tools, "v1", "http1", scenario.bytes, place)
    site = Site("hop", "http1", {"v1": address})
    beside = []
    try:
        for name in crew.wanted:
            peer = bench.peers[name]
            if why := peer.lacks(site):
                crew.absent[name] = why
                continue
            command, target, helper = peer.first_byte(site, bench.place(f"start-{name}"))
            beside += [helper] if helper else []
            verb = ["first-byte", "--target", target, "--authority", load.AUTHORITY, "--"]
            pin = shutil.which("taskset")
            verb += [pin, "-c", procs.PROXY_CORE] if pin else []
            crew.entries.append(Entry(name, name, "", None, [*verb, *command]))
        for number, order in enumerate(crew.order(bench.options.rounds), 1):
            for entry in order:
                result = load.run(bench.tools, entry.command, 5)
                entry.rounds.append(result["milliseconds"])
            shown = ", ".join(f"{e.name} {e.rounds[-1]:.1f}" for e in crew.entries)
            bench.say(f"{scenario.name}: round {number}: {shown} ms")
    finally:
        for process in [*beside, upstream]:
            process.stop()
    entries = {e.name: e.record(summary=stats.summary(e.rounds)) for e in crew.entries}
    return crew.record(entries, [], "ms")


def size(bench, scenario):
    """Bytes of each program after `strip`."""
    crew = Crew(bench, scenario)
    entries = {}
    for name in crew.wanted:
        binary = bench.peers[name].binary()
        if not binary or not bench.tools["strip"]:
            crew.absent[name] = "not found" if not binary else "strip not found"
            continue
        copy = pathlib.Path(bench.place(f"size-{name}")) / "stripped"
        subprocess.run([bench.tools["strip"], "-o", copy, binary], check=True)
        entry = Entry(name, name, "", None, [], extra={"bytes": copy.stat().st_size})
        entries[name] = entry.record()
        copy.unlink()
    return crew.record(entries, [], "MB")
