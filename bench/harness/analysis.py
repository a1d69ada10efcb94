"""Verdicts on simulated canaries: a table, a plot, and whether what the plan
states was kept."""

import math

from . import plot

# Seconds that the axis of time has marks at.
MARKS = ((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (14400, "4 h"))
SIDES = (("weir", "Weir", plot.COLOURS["weir"]), ("naive", "threshold", plot.COLOURS["relay"]))
WRONG = {"rolled_back": "rolled back", "promoted": "promoted"}


def share(rate):
    """A probability for people."""
    if rate in (0, 1):
        return f"{rate * 100:.0f} %"
    return f"{rate * 100:.2g} %" if rate < 0.0995 else f"{rate * 100:.0f} %"


def duration(seconds):
    """Seconds for people."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min"


def broken(report):
    """Scenarios in which more verdicts were wrong than the plan states, beyond
    chance; none is what should come out."""
    return [
        s["name"] for s in report["scenarios"]
        if s["stated"] is not None and s["weir"]["wrong"]["low"] > s["stated"]
    ]


def table(report):
    """Lines of Markdown."""
    lines = [
        "| scenario | wrong is | stated | measured [95 %] | median, p95 to the verdict | "
        "canary requests | threshold: wrong | threshold: median |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for s in report["scenarios"]:
        weir, naive = s["weir"], s["naive"]
        wrong = weir["wrong"]
        stated = "none" if s["stated"] is None else "<= " + share(s["stated"])
        times = f"{duration(weir['seconds']['median'])}, {duration(weir['seconds']['p95'])}"
        requests = [weir["canary_requests"][key] for key in ("median", "p95")]
        counts = ", ".join("-" if n is None else f"{n:,}" for n in requests)
        lines.append(
            f"| `{s['name']}` | {WRONG[s['wrong_is']]} | {stated} | {share(wrong['rate'])} "
            f"[{share(wrong['low'])}..{share(wrong['high'])}] | {times} | {counts} | "
            f"{share(naive['wrong']['rate'])} | {duration(naive['seconds']['median'])} |"
        )
    return lines


def draw(report):
    """The plot: time from the start to the verdict, and how many are wrong."""
    left, right = plot.LEFT, plot.RIGHT
    rows = report["scenarios"]
    bottom = plot.TOP + plot.ROW * len(rows)
    top = math.log10(MARKS[-1][0])

    def place(seconds):
        part = math.log10(max(seconds, 1)) / top
        return left + (plot.WIDTH - left - right) * part

    parts = []
    for seconds, words in MARKS:
        x = place(seconds)
        parts.append(
            f'<line x1="{x:.1f}" y1="{plot.TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>'
        )
        parts.append(plot.text(x, bottom + 18, words, anchor="middle", size=12, fill="#555"))
    for index, row in enumerate(rows):
        y = plot.TOP + plot.ROW * index
        parts.append(plot.text(left - 10, y + 21, row["name"], anchor="end"))
        for side, (key, name, colour) in enumerate(SIDES):
            middle = y + 11 + 12 * side
            parts += span(row[key]["seconds"], row["limit"], place, middle, colour)
            words = f"{name}: {share(row[key]['wrong']['rate'])} wrongly {WRONG[row['wrong_is']]}"
            parts.append(
                plot.text(plot.WIDTH - right + 8, middle + 4, words, size=10, fill=colour)
            )
    title = f"Time to the verdict, and how many were wrong ({report['runs']:,} canaries each)"
    below = "median (dot) to 95th percentile; dotted or hollow: no verdict within the limit"
    return plot.page(bottom + 34, parts, title, below)


def span(quantiles, limit, place, y, colour):
    """Median and 95th percentile on the axis of time."""
    median, high = quantiles["median"], quantiles["p95"]
    start, end = place(median or limit), place(high or limit)
    dash = "" if high else ' stroke-dasharray="3 3"'
    parts = [
        f'<line x1="{start:.1f}" y1="{y}" x2="{end:.1f}" y2="{y}" stroke="{colour}" '
        f'stroke-width="3"{dash}/>'
    ]
    fill = colour if median else "#ffffff"
    parts.append(
        f'<circle cx="{start:.1f}" cy="{y}" r="4" fill="{fill}" stroke="{colour}"/>'
    )
    return parts
