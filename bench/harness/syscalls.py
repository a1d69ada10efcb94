"""System calls per request, by strace: on a window of its own, for it slows
what it watches many times over."""

import re
import signal
import subprocess

from . import load, procs

SECONDS = 1.0
# `% time seconds usecs/call calls [errors] syscall`
LINE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$")


def parse(text):
    """Calls by name, from strace's summary."""
    found = {}
    for line in text.splitlines():
        if (match := LINE.match(line)) and match[2] != "total":
            found[match[2]] = found.get(match[2], 0) + int(match[1])
    return found


def per_request(bench, entry):
    """{"total": calls a request, "calls": {name: calls a request}}, the most
    frequent first; None without strace or proxies."""
    strace = bench.tools["strace"]
    pids = entry.running.pids()
    if not strace or not pids:
        return None
    summary = bench.place("strace") / "summary"
    command = [strace, "-f", "-c", "-o", summary]
    for pid in pids:
        command += ["-p", pid]
    command = [str(part) for part in load.pinned(command)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for _ in pids:
            # One line for each process that it has taken hold of.
            if "attached" not in (line := tracer.stderr.readline()):
                raise procs.Failed(f"strace: {line.strip()}")
        result = load.window(bench.tools, entry.command, SECONDS, 0)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
    entry.count(result)
    if not result["requests"]:
        return None
    calls = parse(summary.read_text())
    each = {
        name: count / result["requests"]
        for name, count in sorted(calls.items(), key=lambda item: -item[1])
    }
    return {"total": sum(each.values()), "calls": each, "requests": result["requests"]}
