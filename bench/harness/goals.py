"""What Weir must reach, and whether a run has reached it.

A goal is a bound on one figure. `met` is None where a run did not measure it,
or where a scenario is void.
"""

# Limits of issue 4's table, in its units.
MIB = 1 << 20
HOP = ("http1-c1", "http1-c64")
PAIRS = ("pair-http1-c1", "pair-http1-c64", "pair-grpc-1x1", "pair-grpc-16x16")
LATENCIES = ("latency-pair-http1", "latency-pair-grpc")


class Results:
    """Reads a run's results."""

    def __init__(self, results):
        self.scenarios = {one["name"]: one for one in results.get("scenarios", [])}
        self.aes = results.get("aes")

    def void(self, scenario):
        """Why its figures do not count."""
        return (self.scenarios.get(scenario) or {}).get("void")

    def entry(self, scenario, name):
        """A peer in a scenario, or None."""
        found = self.scenarios.get(scenario) or {}
        return (found.get("entries") or {}).get(name)

    def figure(self, scenario, name, metric):
        """A median."""
        entry = self.entry(scenario, name)
        summary = (entry or {}).get("summary") or {}
        return (summary.get(metric) or {}).get("median")

    def ratio(self, scenario, one, other, metric):
        """Of two medians of the same scenario."""
        above = self.figure(scenario, one, metric)
        below = self.figure(scenario, other, metric)
        return above / below if above and below else None

    def added(self, scenario, name, rate):
        """The p99 that is added at a rate, microseconds."""
        entry = self.entry(scenario, name) or {}
        at = (entry.get("latency") or {}).get(rate) or {}
        return ((at.get("added") or {}).get("p99") or {}).get("median")


def goal(figure, scenario, value, limit, at_most=True, unit="x", void=None):
    """A row of the table."""
    met = None
    if value is not None and not void:
        met = value <= limit if at_most else value >= limit
    return {
        "figure": figure,
        "scenario": scenario,
        "bound": f"{'<=' if at_most else '>='} {limit:g} {unit}".replace(" x", "x"),
        "limit": limit,
        "measured": value,
        "unit": unit,
        "met": met,
        "void": void,
    }


def evaluate(results):
    """Every goal, as rows."""
    read = Results(results)
    rows = [*cpu(read), *latency(read), *throughput(read), *bodies(read)]
    return [*rows, *footprint(read), *changes(read)]


def cpu(read):
    """CPU per request beside the peers'."""
    for scenario in HOP:
        for other, limit in (("nginx", 1.15), ("envoy", 0.4)):
            value = read.ratio(scenario, "weir", other, "cpu_us")
            figure = f"CPU per request, one hop, against {other}"
            yield goal(figure, scenario, value, limit, void=read.void(scenario))
    for scenario in PAIRS:
        value = read.ratio(scenario, "weir", "envoy", "cpu_us")
        figure = "CPU per request, mTLS pair, against envoy"
        yield goal(figure, scenario, value, 0.4, void=read.void(scenario))


def latency(read):
    """p99 that the pair adds."""
    for scenario in LATENCIES:
        for rate in ("25%", "50%", "75%"):
            ours, theirs = (read.added(scenario, name, rate) for name in ("weir", "envoy"))
            # Not above the noise of the load itself: nothing to compare.
            value = max(ours, 0.0) / theirs if ours is not None and theirs and theirs > 0 else None
            figure = f"p99 added by the mTLS pair at {rate}, against envoy"
            yield goal(figure, scenario, value, 0.5, void=read.void(scenario))


def throughput(read):
    """Requests a second of one core."""
    scenario = "pair-grpc-16x16"
    value = read.ratio(scenario, "weir", "envoy", "rps_core")
    figure = "requests per second of one core, against envoy"
    yield goal(figure, scenario, value, 2.5, at_most=False, void=read.void(scenario))


def allowed(relay, aes):
    """Bytes a second that a relay and AES-GCM together allow on one core: each
    byte is relayed, sealed once and opened once."""
    if not relay or not aes:
        return None
    seal, opened = aes["seal_bytes_per_second"], aes["open_bytes_per_second"]
    return 1 / (1 / relay + 1 / seal + 1 / opened)


def bodies(read):
    """16 MiB beside a relay, by the clock and by the CPU."""
    for metric, name in (("bytes_per_second", "bytes/s"), ("bytes_per_cpu_second", "bytes/CPU s")):
        scenario = "body-16m"
        value = read.ratio(scenario, "weir", "relay", metric)
        figure = f"bodies of 16 MiB, {name}, against a relay"
        yield goal(figure, scenario, value, 0.8, at_most=False, void=read.void(scenario))
    scenario = "pair-body-16m"
    for metric, name in (("bytes_per_second", "bytes/s"), ("bytes_per_cpu_second", "bytes/CPU s")):
        ours = read.figure(scenario, "weir", metric)
        most = allowed(read.figure(scenario, "relay", metric), read.aes)
        figure = f"bodies of 16 MiB by mTLS, {name}, against two relays and AES-GCM"
        value = ours / most if ours and most else None
        yield goal(figure, scenario, value, 0.7, at_most=False, void=read.void(scenario))


def footprint(read):
    """Memory, start and size."""

    def of(scenario, *keys):
        found = read.entry(scenario, "weir")
        for key in keys:
            found = (found or {}).get(key)
        return found

    def scaled(value, by):
        return None if value is None else value / by

    rss = scaled(of("memory-idle", "memory", "rss"), MIB)
    yield goal("resident memory, idle", "memory-idle", rss, 6, unit="MiB")
    for scenario, limit in (("idle-http1", 8), ("idle-mtls", 20)):
        grown = scaled(of(scenario, "rss_per_1000"), MIB)
        yield goal("memory of 1,000 idle connections", scenario, grown, limit, unit="MiB")
        ratio = of(scenario, "after_ratio")
        yield goal("memory after a burst, against idle", scenario, ratio, 1.5)
    value = of("start-first-byte", "summary", "median")
    yield goal("start to first proxied byte", "start-first-byte", value, 10, unit="ms")
    yield goal("weir-router, stripped", "size", scaled(of("size", "bytes"), 1e6), 8, unit="MB")


def changes(read):
    """What routes and changes may cost."""
    void = read.void("routes")
    value = read.ratio("routes", "weir/10000", "weir/10", "cpu_us")
    yield goal("CPU per request, 10,000 routes against 10", "routes", value, 1.05, void=void)
    scenario = "pair-shifting"
    value = read.ratio(scenario, "weir/shifting", "weir/steady", "cpu_us")
    figure = "CPU per request while weights change, against steady"
    yield goal(figure, scenario, value, 1.05, void=read.void(scenario))
    entry = read.entry(scenario, "weir/shifting")
    failed = entry["failed"] if entry else None
    yield goal("failed requests while weights change", scenario, failed, 0, unit="failed")
