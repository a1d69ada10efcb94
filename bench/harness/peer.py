"""What a peer is to the harness."""

import dataclasses
import pathlib

from . import procs


@dataclasses.dataclass(frozen=True)
class Site:
    """What a peer stands in front of.

    `kind` is `hop` (one proxy, plaintext on both sides, to v1), `pair` (the
    client's sidecar, mutual TLS, the sidecars of v1 and v2, split by weight) or
    `gateway` (JSON to gRPC, to v1). `protocol` is what the upstreams speak:
    `http1` or `grpc`. `routes` is how many there are in the table. For a gateway,
    `descriptors` is the file of the catalogue's.
    """

    kind: str
    protocol: str
    upstreams: dict
    routes: int = 1
    weights: tuple = (90, 10)
    descriptors: object = None


class Running:
    """A peer that runs."""

    def __init__(self, target, proxies, others=()):
        # Where the load goes.
        self.target = target
        # What is measured, and what only helps.
        self.proxies = list(proxies)
        self.others = list(others)
        # Where mutual TLS comes in, and what a client shows there.
        self.inbound = None
        self.client = None

    def pids(self):
        """Of the proxies."""
        return [pid for proxy in self.proxies for pid in proxy.pids()]

    def check(self):
        """Raises Failed when a proxy has died."""
        for process in [*self.proxies, *self.others]:
            if not process.alive():
                raise process.failed(f"ended with {process.child.returncode}")

    def stop(self):
        """Stops everything."""
        for process in [*self.proxies, *self.others]:
            process.stop()

    def shift(self, weights):
        """Sets the weights of v1 and v2."""
        raise NotImplementedError

    def rotate(self):
        """Has every proxy take another certificate."""
        raise NotImplementedError


class Peer:
    """One of those that are compared."""

    name = ""
    # Kinds of site that it can be put in.
    kinds = ()
    # Programs without which it cannot.
    needs = ()

    def __init__(self, tools):
        self.tools = tools

    def lacks(self, site):
        """Why it cannot take part; empty when it can."""
        absent = [name for name in self.needs if not self.tools[name]]
        if absent:
            return f"{', '.join(absent)} not found"
        if (site.kind, site.protocol) not in self.kinds:
            return "not its trade"
        return ""

    def start(self, site, directory):
        """Starts it; gives a Running whose proxies take requests."""
        raise NotImplementedError

    def binary(self):
        """The program whose size counts."""
        return self.tools[self.needs[0]]

    def first_byte(self, site, directory):
        """How to start it as one hop: (command, IP:PORT, what must run beside)."""
        raise NotImplementedError


class Simple(Peer):
    """One process with one configuration file, as one hop."""

    def prepare(self, site, directory):
        """Writes the configuration: (command, IP:PORT)."""
        raise NotImplementedError

    def start(self, site, directory):
        command, target = self.prepare(site, directory)
        process = procs.Process(self.name, command, procs.PROXY_CORE, directory)
        process.wait_listening(target)
        return Running(target, [process])

    def first_byte(self, site, directory):
        command, target = self.prepare(site, directory)
        return command, target, None


def local(port):
    """`IP:PORT` on loopback."""
    return f"127.0.0.1:{port}"


def port_of(address):
    """The port of `IP:PORT`."""
    return int(address.rsplit(":", 1)[1])


def made(directory, name):
    """A directory inside, made."""
    path = pathlib.Path(directory) / name
    path.mkdir(parents=True, exist_ok=True)
    return path
