"""Plots, as SVG by hand: bars with intervals, and lines of latency."""

import html

from .report import MIB, number

COLOURS = {
    "weir": "#1a6fb5",
    "nginx": "#3a9a4f",
    "haproxy": "#c98a1b",
    "envoy": "#b5403a",
    "relay": "#777777",
    "direct": "#777777",
}
WIDTH, ROW, LEFT, RIGHT, TOP = 760, 34, 150, 190, 64
STYLE = "font-family: sans-serif; font-size: 13px; fill: #222"


def colour(name):
    """A peer's, whatever its variant."""
    return COLOURS.get(name.split("/")[0], "#555555")


def text(x, y, words, anchor="start", size=13, weight="normal", fill="#222"):
    """A line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="{fill}">{html.escape(words)}</text>'
    )


def page(height, parts, title, below):
    """The whole of an SVG."""
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" style="{STYLE}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(16, 26, title, size=16, weight="bold"),
        text(16, 46, below, size=12, fill="#555"),
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def bars(title, below, rows):
    """Horizontal bars: rows of (name, value, low, high, label); low and high
    may be None."""
    height = TOP + ROW * len(rows) + 24
    top = max((row[3] or row[1]) for row in rows) or 1
    scale = (WIDTH - LEFT - RIGHT) / top
    parts = []
    for index, (name, value, low, high, label) in enumerate(rows):
        y = TOP + ROW * index
        middle = y + ROW / 2
        parts.append(text(LEFT - 10, middle + 4, name, anchor="end"))
        parts.append(
            f'<rect x="{LEFT}" y="{y + 6}" width="{max(value * scale, 1):.1f}" '
            f'height="{ROW - 12}" fill="{colour(name)}"/>'
        )
        end = LEFT + (high or value) * scale
        if low is not None and high is not None:
            parts += whisker(LEFT + low * scale, LEFT + high * scale, middle)
        parts.append(text(end + 8, middle + 4, label))
    return page(height, parts, title, below)


def whisker(low, high, y):
    """An interval."""
    lines = [(low, y, high, y), (low, y - 5, low, y + 5), (high, y - 5, high, y + 5)]
    return [
        f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}" stroke="#222"/>'
        for a, b, c, d in lines
    ]


def lines(title, below, labels, series):
    """Lines over named places: series of (name, [value or None], dashed)."""
    height, bottom, left = 380, 50, 80
    values = [v for _, line, _ in series for v in line if v is not None]
    top = max([*values, 1e-9]) * 1.1
    floor = min([*values, 0.0])

    def place_x(index):
        return left + (WIDTH - left - RIGHT) * index / max(len(labels) - 1, 1)

    def place_y(value):
        return TOP + (height - TOP - bottom) * (1 - (value - floor) / (top - floor))

    parts = []
    for step in range(5):
        value = floor + (top - floor) * step / 4
        y = place_y(value)
        parts.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        parts.append(text(left - 8, y + 4, number(value), anchor="end", size=12, fill="#555"))
    for index, label in enumerate(labels):
        parts.append(text(place_x(index), height - 24, label, anchor="middle", size=12))
    ends = []
    for name, line, dashed in series:
        known = [(place_x(i), place_y(v)) for i, v in enumerate(line) if v is not None]
        if not known:
            continue
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in known)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour(name)}" '
            f'stroke-width="2"{dash}/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour(name)}"/>'
                  for x, y in known]
        ends.append((known[-1][1], name))
    # Names beside the ends of their lines, moved apart where they would touch.
    last = -1e9
    for y, name in sorted(ends):
        last = max(y, last + 16)
        parts.append(text(WIDTH - RIGHT + 12, last + 4, name, fill=colour(name)))
    return page(height, parts, title, below)


def bar_rows(scenario):
    """What the bars of a scenario show: (unit, rows)."""
    rows = []
    for name, entry in scenario["entries"].items():
        summary = None
        if scenario["how"] == "closed":
            body = scenario["name"].endswith("body-16m")
            summary = entry["summary"].get("bytes_per_second" if body else "cpu_us")
            scale, unit = (1 / MIB, "MiB/s") if body else (1, "CPU microseconds per request")
        elif scenario["how"] == "start":
            summary, scale, unit = entry["summary"], 1, "milliseconds"
        elif scenario["how"] == "idle":
            value, scale, unit = entry["rss_per_1000"], 1 / MIB, "MiB per 1,000 connections"
        elif scenario["how"] == "memory":
            value, scale, unit = entry["memory"]["rss"], 1 / MIB, "MiB resident"
        else:
            value, scale, unit = entry["bytes"], 1e-6, "MB"
        if summary:
            value, low, high = (summary[key] * scale for key in ("median", "low", "high"))
            label = f"{number(value)}  [{number(low)}..{number(high)}]"
            rows.append((name, value, low, high, label))
        elif scenario["how"] not in ("closed", "start"):
            rows.append((name, value * scale, None, None, number(value * scale)))
    return (unit, rows) if rows else ("", [])


def draw(scenario):
    """The plot of a scenario; None when nothing was measured."""
    title = scenario["title"] + (" (VOID)" if scenario["void"] else "")
    if scenario["how"] == "latency":
        series = []
        for name, entry in scenario["entries"].items():
            if entry["peer"] == "direct":
                continue
            for key, dashed in (("p99", False), ("p50", True)):
                line = [
                    ((entry["latency"][rate]["added"].get(key)) or {}).get("median")
                    for rate in scenario["rates"]
                ]
                series.append((name if not dashed else f"{name}/p50", line, dashed))
        if not series:
            return None
        labels = [f"{rate} ({count:,}/s)" for rate, count in scenario["rates"].items()]
        below = "microseconds added: p99 (lines) and p50 (dashes), over the rate"
        return lines(title, below, labels, series)
    unit, rows = bar_rows(scenario)
    if any(low is not None for _, _, low, _, _ in rows):
        unit += "; medians and 95 % intervals"
    return bars(title, unit, rows) if rows else None
