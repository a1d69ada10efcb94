"""Tables for the terminal, and the results as JSON."""

import json

from . import tools

MIB = 1 << 20


def number(value, unit=""):
    """A figure with three digits, as a person reads it."""
    if value is None:
        return "-"
    size = abs(value)
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if size < limit:
            return f"{value:.{digits}f}{unit}"
    return f"{value:,.0f}{unit}"


def interval(summary, scale=1.0):
    """`median [low..high]`."""
    if not summary:
        return "-"
    median, low, high = (number(summary[key] * scale) for key in ("median", "low", "high"))
    return f"{median} [{low}..{high}]"


# Label, metric, scale; rows of a closed loop.
CLOSED = (
    ("CPU us/request", "cpu_us", 1),
    ("  of it user", "user_us", 1),
    ("  of it system", "system_us", 1),
    ("requests/s", "rps", 1),
    ("requests/s of a core", "rps_core", 1),
    ("proxies' core busy %", "busy", 100),
    ("p50 us", "p50", 1),
    ("p99 us", "p99", 1),
    ("p99.9 us", "p99_9", 1),
    ("context switches/request", "switches", 1),
)
BODIES = (
    ("MiB/s", "bytes_per_second", 1 / MIB),
    ("MiB per CPU second", "bytes_per_cpu_second", 1 / MIB),
)


def closed_rows(scenario, entries):
    """Rows of a closed loop."""
    shown = list(CLOSED)
    if "body" in scenario["name"] or "upload" in scenario["name"]:
        shown += BODIES
    if scenario["name"].startswith("pair"):
        shown.append(("share of v2 %", "v2_share", 100))
    for label, metric, scale in shown:
        cells = [interval(entry["summary"].get(metric), scale) for entry in entries]
        yield label, cells
    calls = [(entry.get("syscalls") or {}).get("total") for entry in entries]
    yield "system calls/request", [number(value) for value in calls]


def latency_rows(scenario, entries):
    """Rows of fixed rates."""
    for rate, requests in scenario["rates"].items():
        for key, label in (("p50", "p50"), ("p99", "p99"), ("p99_9", "p99.9")):
            cells = []
            for entry in entries:
                at = entry["latency"][rate]
                kind = "measured" if entry["peer"] == "direct" else "added"
                cells.append(interval(at[kind].get(key)))
            yield f"{label} us at {rate} ({requests:,}/s)", cells


def idle_rows(_, entries):
    """Rows of idle connections."""
    yield "idle MiB", [number(entry["before"]["rss"] / MIB) for entry in entries]
    yield "with connections MiB", [number(entry["with"]["rss"] / MIB) for entry in entries]
    yield "MiB per 1,000", [number(entry["rss_per_1000"] / MIB) for entry in entries]
    seconds = entries[0]["settle_seconds"] if entries else 0
    label = f"{seconds:.0f} s after a burst MiB"
    yield label, [number(entry["after"]["rss"] / MIB) for entry in entries]
    yield "  against idle", [number(entry["after_ratio"], "x") for entry in entries]


def memory_rows(_, entries):
    """Rows of memory."""
    yield "resident MiB", [number(entry["memory"]["rss"] / MIB) for entry in entries]
    yield "proportional MiB", [number(entry["memory"]["pss"] / MIB) for entry in entries]


def start_rows(_, entries):
    """Rows of starts."""
    yield "ms to the first byte", [interval(entry["summary"]) for entry in entries]


def size_rows(_, entries):
    """Rows of sizes."""
    yield "MB, stripped", [number(entry["bytes"] / 1e6) for entry in entries]


ROWS = {
    "closed": closed_rows,
    "latency": latency_rows,
    "idle": idle_rows,
    "memory": memory_rows,
    "start": start_rows,
    "size": size_rows,
}


def table(head, rows):
    """Columns of text; the first to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "-" * max(len(line) for line in text))
    return "\n".join(text)


def scenario_table(scenario):
    """One scenario's table: a column for each peer."""
    entries = list(scenario["entries"].items())
    absent = list(scenario["absent"])
    head = ["", *(name for name, _ in entries), *absent]
    rows = []
    for label, cells in ROWS[scenario["how"]](scenario, [entry for _, entry in entries]):
        rows.append([label, *cells, *("-" for _ in absent)])
    if any(entry["failed"] for _, entry in entries):
        cells = [f"{entry['failed']} failed" if entry["failed"] else "0" for _, entry in entries]
        rows.append(["FAILED REQUESTS", *cells, *("-" for _ in absent)])
    title = f"{scenario['name']}: {scenario['title']}"
    if scenario["void"]:
        title += f"\nVOID: {scenario['void']}"
    parts = [title, table(head, rows)]
    for name, entry in entries:
        if entry["failed"]:
            parts.append(f"{name}: failed: {entry['errors']}")
        parts += [f"{name}: {note}" for note in entry["notes"]]
    parts += [f"{name}: {why.splitlines()[0]}" for name, why in scenario["absent"].items()]
    return "\n".join(parts) + "\n"


def goals_table(rows):
    """What must be reached, and what was."""
    words = {True: "yes", False: "NO", None: "-"}
    shown = []
    for row in rows:
        measured = number(row["measured"], "x" if row["unit"] == "x" else f" {row['unit']}")
        met = "void" if row["void"] else words[row["met"]]
        shown.append([row["figure"], row["scenario"], row["bound"], measured, met])
    return table(["goal", "scenario", "bound", "measured", "met"], shown)


def write_json(results, path):
    """All of it, every round included; without this machine's paths."""
    text = json.dumps(results, indent=1, default=str)
    for directory, name in ((tools.target(), "target"), (tools.ROOT, "weir")):
        text = text.replace(str(directory), name)
    path.write_text(text + "\n")
