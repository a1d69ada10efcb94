"""What all measurements share: programs, options, the control, the crew of one
scenario."""

import dataclasses
import pathlib
import shutil
import sys
import tempfile
import time

from . import gateway, load, peer_envoy, peer_simple, peer_weir, procs, scenarios, stats
from .peer import Site

PEERS = {
    peer.name: peer
    for peer in (
        peer_weir.Weir,
        peer_simple.Nginx,
        peer_simple.Haproxy,
        peer_envoy.Envoy,
        peer_simple.Relay,
        peer_simple.Direct,
    )
}
# The control: nginx, HTTP/1.1, 64 connections.
CONTROL = scenarios.Scenario("control", "nginx, HTTP/1.1, 64 connections")


@dataclasses.dataclass
class Options:
    """What the command line asks for."""

    peers: tuple = ("weir", "nginx", "haproxy", "envoy")
    rounds: int = 10
    # Of a window, and of the load before it that is not counted.
    seconds: float = 3.0
    warmup: float = 0.5
    # Of the control's window in each round.
    control_seconds: float = 1.0
    # From the end of a burst to the look at memory.
    settle: float = 30.0


class Bench:
    """One run. Used by `with`, which stops everything at the end."""

    def __init__(self, tools, options):
        self.tools = tools
        self.options = options
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-bench-"))
        self.peers = {name: peer(tools) for name, peer in PEERS.items()}
        self.control = None
        self.failures = []
        self._began = time.monotonic()
        self._places = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        procs.stop_all()
        # Logs are kept for whoever wants to know what went wrong.
        if not self.failures and kind in (None, SystemExit, KeyboardInterrupt):
            shutil.rmtree(self.directory, ignore_errors=True)

    def say(self, text):
        """A line of progress."""
        print(f"[{time.monotonic() - self._began:6.0f} s] {text}", file=sys.stderr, flush=True)

    def failed(self, text):
        """Remembers a failure: the run goes on, and its exit code says so."""
        self.failures.append(text)
        self.say(f"FAILED: {text}")

    def place(self, name):
        """A new directory for what is started together."""
        self._places += 1
        path = self.directory / f"{self._places:03}-{name.replace('/', '-')}"
        path.mkdir()
        return path

    def start_control(self):
        """Starts the control, if nginx is there."""
        nginx = self.peers["nginx"]
        if self.control is None and nginx.tools["nginx"]:
            place = self.place("control")
            upstream, address = load.upstream(
                self.tools, "control", "http1", CONTROL.bytes, place
            )
            running = nginx.start(Site("hop", "http1", {"v1": address}), place)
            running.others.append(upstream)
            self.control = running
            self.sample_control()

    def sample_control(self):
        """The control's CPU microseconds a request, now; None without nginx."""
        if self.control is None:
            return None
        command = load.arguments(CONTROL, self.control.target)
        result = load.window(
            self.tools, command, self.options.control_seconds, 0.1, self.control.pids()
        )
        if result["failed"]:
            self.failed(f"control: {result['failed']} failed: {result['errors']}")
        found = load.figures(result)
        return found and found["cpu_us"]


@dataclasses.dataclass
class Entry:
    """A peer, or a variant of it, in one scenario."""

    name: str
    peer: str
    variant: str
    running: object
    command: list
    rounds: list = dataclasses.field(default_factory=list)
    failed: int = 0
    errors: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)
    extra: dict = dataclasses.field(default_factory=dict)

    def count(self, result):
        """Adds the failures of a window."""
        self.failed += result["failed"]
        for kind, number in result["errors"].items():
            self.errors[kind] = self.errors.get(kind, 0) + number

    def record(self, **more):
        """For the results."""
        return {
            "peer": self.peer,
            "variant": self.variant,
            "failed": self.failed,
            "errors": self.errors,
            "notes": self.notes,
            **self.extra,
            **more,
        }


class Crew:
    """Upstreams and peers of one scenario, fresh. Used by `with`."""

    def __init__(self, bench, scenario, extra=()):
        self.bench = bench
        self.scenario = scenario
        self.wanted = [p for p in scenario.peers if p in bench.options.peers or p == "relay"]
        self.wanted += extra
        self.upstreams = []
        self.entries = []
        # Why a peer is not here.
        self.absent = {}

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for entry in self.entries:
            entry.running.stop()
        for upstream in self.upstreams:
            upstream.stop()

    def _start(self):
        scenario = self.scenario
        place = self.bench.place(f"{scenario.name}-upstreams")
        addresses, descriptors = self._start_upstreams(place)
        for variant in scenario.variants:
            routes = int(variant) if scenario.routes else 1
            site = Site(
                scenario.site, scenario.protocol, addresses, routes, descriptors=descriptors
            )
            for name in self.wanted:
                self._start_one(name, variant, site)
        if scenario.site == "gateway":
            bodies = [gateway.prepare(entry, place) for entry in self.entries]
            for entry, body in zip(self.entries, bodies):
                if body != bodies[0]:
                    entry.notes.append(f"its JSON differs from {self.entries[0].name}'s")

    def _start_upstreams(self, place):
        """What stands behind the peers: (addresses by version, descriptors)."""
        scenario, tools = self.scenario, self.bench.tools
        if scenario.site == "gateway":
            if not tools["weir"]:
                raise procs.Failed("the catalogue is a part of `weir`, which is not built")
            process, address = load.catalogue(tools, place)
            self.upstreams.append(process)
            return {"v1": address}, peer_weir.descriptors(tools, place)
        addresses = {}
        for version in ("v1", "v2") if scenario.site == "pair" else ("v1",):
            process, addresses[version] = load.upstream(
                tools, version, scenario.protocol, scenario.bytes, place
            )
            self.upstreams.append(process)
        return addresses, None

    def _start_one(self, name, variant, site):
        peer = self.bench.peers[name]
        label = f"{name}/{variant}" if variant else name
        if why := peer.lacks(site):
            self.absent[label] = why
            return
        try:
            running = peer.start(site, self.bench.place(f"{self.scenario.name}-{label}"))
        except (procs.Failed, OSError) as error:
            self.absent[label] = str(error)
            self.bench.failed(f"{self.scenario.name}: {label}: {error}")
            return
        path = f"/r{site.routes - 1}/x" if site.routes > 1 else None
        command = load.arguments(self.scenario, running.target, path)
        self.entries.append(Entry(label, name, variant, running, command))

    def order(self, rounds):
        """The entries of each round."""
        by_name = {entry.name: entry for entry in self.entries}
        return [[by_name[name] for name in names] for names in stats.abba(by_name, rounds)]

    def record(self, entries, control, unit):
        """The scenario's part of the results."""
        scenario = self.scenario
        values = [value for value in control if value is not None]
        return {
            "name": scenario.name,
            "title": scenario.title,
            "how": scenario.how,
            "unit": unit,
            "control": values,
            "moved": stats.movement(values),
            "void": stats.void(values),
            "absent": self.absent,
            "entries": entries,
        }
