"""What is measured."""

import dataclasses
import fnmatch

HOP = ("weir", "nginx", "haproxy", "envoy")
PAIR = ("weir", "envoy")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One of the bench's tables.

    `how` says which module measures it: `closed` (rounds of a closed loop),
    `latency` (fixed rates), `idle`, `start`, `memory`, `size`. `variants` are
    measured beside each other in the same rounds. `bytes` is a response's body,
    or with `upload` a request's.
    """

    name: str
    title: str
    how: str = "closed"
    site: str = "hop"
    protocol: str = "http1"
    load: str = ""
    connections: int = 64
    streams: int = 1
    bytes: int = 64
    messages: int = 0
    churn: bool = False
    upload: bool = False
    peers: tuple = HOP
    variants: tuple = ("",)
    # A variant that changes something ten times, or once, a second.
    disturb: str = ""

    @property
    def routes(self):
        """Whether its variants are numbers of routes."""
        return self.name == "routes"


def grpc(name, title, **more):
    """A scenario of gRPC."""
    return Scenario(name, title, **{"protocol": "grpc", "load": "grpc", **more})


MIB = 1 << 20
ALL = [
    Scenario("http1-c1", "HTTP/1.1, 1 connection, one hop", connections=1),
    Scenario("http1-c64", "HTTP/1.1, 64 connections, one hop"),
    Scenario("http1-churn", "HTTP/1.1, a connection for every request", connections=16, churn=True),
    grpc("grpc-1x1", "gRPC unary, 1 connection x 1 stream, one hop", connections=1),
    grpc("grpc-16x16", "gRPC unary, 16 connections x 16 streams, one hop",
         connections=16, streams=16),
    grpc("grpc-stream", "gRPC server streaming, 100 messages a call, 4 x 4, one hop",
         load="grpc-stream", connections=4, streams=4, messages=100),
    Scenario("body-64k", "HTTP/1.1, answers of 64 KiB, 16 connections, one hop",
             connections=16, bytes=64 * 1024),
    Scenario("body-16m", "HTTP/1.1, answers of 16 MiB, 4 connections, one hop",
             connections=4, bytes=16 * MIB, peers=(*HOP, "relay")),
    Scenario("upload-64k", "HTTP/1.1, requests of 64 KiB, 16 connections, one hop",
             connections=16, bytes=64 * 1024, upload=True),
    Scenario("pair-http1-c1", "mTLS pair 90/10, HTTP/1.1, 1 connection",
             site="pair", connections=1, peers=PAIR),
    Scenario("pair-http1-c64", "mTLS pair 90/10, HTTP/1.1, 64 connections",
             site="pair", peers=PAIR),
    grpc("pair-grpc-1x1", "mTLS pair 90/10, gRPC 1 x 1", site="pair", connections=1, peers=PAIR),
    grpc("pair-grpc-16x16", "mTLS pair 90/10, gRPC 16 x 16",
         site="pair", connections=16, streams=16, peers=PAIR),
    Scenario("pair-body-16m", "mTLS pair, HTTP/1.1, answers of 16 MiB, 4 connections",
             site="pair", connections=4, bytes=16 * MIB, peers=(*PAIR, "relay")),
    grpc("pair-shifting", "mTLS pair, gRPC 16 x 16, weights change ten times a second",
         site="pair", connections=16, streams=16, peers=PAIR,
         variants=("steady", "shifting"), disturb="shifting"),
    grpc("pair-rotating", "mTLS pair, gRPC 16 x 16, certificates rotate every second",
         site="pair", connections=16, streams=16, peers=PAIR,
         variants=("steady", "rotating"), disturb="rotating"),
    Scenario("routes", "HTTP/1.1, 64 connections, 10 and 10,000 routes", variants=("10", "10000")),
    Scenario("gateway-json", "JSON to gRPC at the gateway, 64 connections",
             site="gateway", protocol="grpc", load="http1", peers=PAIR),
    Scenario("latency-http1", "Added latency at fixed rates: HTTP/1.1, one hop", how="latency"),
    Scenario("latency-pair-http1", "Added latency at fixed rates: mTLS pair, HTTP/1.1",
             how="latency", site="pair", peers=PAIR),
    grpc("latency-pair-grpc", "Added latency at fixed rates: mTLS pair, gRPC 16 x 16",
         how="latency", site="pair", connections=16, streams=16, peers=PAIR),
    Scenario("idle-http1", "1,000 idle HTTP/1.1 connections, one hop", how="idle"),
    Scenario("idle-mtls", "1,000 idle mTLS HTTP/2 connections to a sidecar",
             how="idle", site="pair", load="http2", peers=PAIR),
    Scenario("memory-idle", "Resident memory of one idle proxy", how="memory"),
    Scenario("start-first-byte", "From start to the first proxied answer", how="start"),
    Scenario("size", "Size of the stripped program", how="size"),
]


def chosen(patterns):
    """Scenarios whose names fit one of the globs; all without globs.

    Raises ValueError for a glob that fits none.
    """
    if not patterns:
        return list(ALL)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(scenario.name, pattern) for scenario in ALL):
            raise ValueError(f"--scenario {pattern}: there is none like this; --list shows all")
    return [s for s in ALL if any(fnmatch.fnmatchcase(s.name, pattern) for pattern in patterns)]
