"""Runs suites: each is a file in suites/ with functions `test_*(kube)`.

They run in the order of the file. `setup(kube)` and `teardown(kube)` are around
them; a suite whose setup fails has failed with all its tests.
"""

import importlib.util
import os
import pathlib
import sys
import time
import traceback

from . import cluster
from .kube import Kube

DIRECTORY = pathlib.Path(__file__).resolve().parents[1] / "suites"


# Suites that share the mesh run one after another; the last one takes it away.
ORDER = (
    *("plain", "injection", "traffic", "gateway", "updates", "tracing", "conformance"),
    *("uninstall", "docs"),
)


class Skip(Exception):
    """Raised by a test for which something is not built or not there, in words."""


def names():
    found = {path.stem for path in DIRECTORY.glob("*.py") if not path.stem.startswith("_")}
    unordered = sorted(found - set(ORDER))
    # Before those that end the mesh.
    return [name for name in (*ORDER[:-2], *unordered, *ORDER[-2:]) if name in found]


def read(name):
    path = DIRECTORY / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"suite_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def attempt(what, function, kube):
    """Runs one function; tells how it went. One of passed, failed, skipped."""
    began = time.monotonic()
    try:
        function(kube)
    except Skip as reason:
        print(f"skipped {what}: {reason}", flush=True)
        return "skipped"
    except Exception as error:  # What a test raises is its result.
        print(f"FAILED  {what} ({time.monotonic() - began:.1f} s): {error}")
        traceback.print_tb(error.__traceback__, limit=-4, file=sys.stdout)
        sys.stdout.flush()
        return "failed"
    print(f"ok      {what} ({time.monotonic() - began:.1f} s)", flush=True)
    return "passed"


def run(name, kube, only=None):
    """Runs one suite; counts by result."""
    module = read(name)
    tests = [
        (title, function)
        for title, function in vars(module).items()
        if title.startswith("test_") and (only is None or only in title)
    ]
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    setup = getattr(module, "setup", None)
    began = attempt(f"{name}: setup", setup, kube) if setup else "passed"
    if began == "passed":
        if results := getattr(module, "results", None):
            several(name, results(kube, only), counts)
        for title, function in tests:
            counts[attempt(f"{name}: {title.removeprefix('test_')}", function, kube)] += 1
    else:
        counts[began] = max(len(tests), 1)
    if teardown := getattr(module, "teardown", None):
        if attempt(f"{name}: teardown", teardown, kube) == "failed":
            counts["failed"] += 1
    return counts


def several(what, results, counts):
    """Adds the results of a test that is a suite of its own: (name, result, detail)."""
    for title, result, detail in results:
        counts[result] += 1
        word = {"passed": "ok     ", "failed": "FAILED ", "skipped": "skipped"}[result]
        print(f"{word} {what}: {title}{': ' + detail if detail else ''}", flush=True)


def main(arguments):
    """NAME-OF-CLUSTER SUITE[:PART-OF-A-TEST'S-NAME] ..."""
    it = cluster.Cluster(arguments[0])
    # For all that the suites start: kubectl, helm, weir.
    os.environ.update(it.environment())
    kube = Kube(it)
    lines, failed = [], 0
    for wanted in arguments[1:] or names():
        name, _, only = wanted.partition(":")
        began = time.monotonic()
        counts = run(name, kube, only or None)
        failed += counts["failed"]
        skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
        seconds = time.monotonic() - began
        lines.append(
            f"suite {name}: {counts['passed']} passed, {counts['failed']} failed{skipped} ({seconds:.0f} s)"
        )
    print("\n".join(["", *lines]), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
