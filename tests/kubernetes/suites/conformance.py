"""The Gateway API's conformance suite, its mesh profiles, as it is published.

Only its image echo-advanced is another one: programs/app stands in for it. The
report is kept in $WEIR_CACHE/conformance, the suite's log beside it.
"""

import re
import shutil
import subprocess

from harness import cluster, mesh
from harness.kube import APP

KEPT = cluster.CACHE / "conformance"
PROFILES = "MESH-HTTP,MESH-GRPC"
CORE = ("Mesh", "HTTPRoute", "GRPCRoute", "ReferenceGrant")
# All that the suite has for meshes.
EXTENDED = (
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteNamedRouteRule",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    # Of routes in general, which the meshes' tests of frontends and ports need.
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteParentRefPort",
)
# Of the suite as a whole, in seconds.
BOUND = 900
# It waits for pods in these also when it makes none there: without gateways.
BACKENDS = ("gateway-conformance-app-backend", "gateway-conformance-web-backend")
LABELS = "weir.dev/inject=enabled"


def setup(kube):
    mesh.install(kube)
    for name in BACKENDS:
        kube.make(name).apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "waited-for"},
                "spec": {"containers": [{"name": "app", "image": APP, "args": ["--port=8080"]}]},
            }
        )


def teardown(kube):
    spaces = [*BACKENDS, "gateway-conformance-mesh", "gateway-conformance-mesh-consumer"]
    for name in spaces:
        kube.delete("namespace", name, wait=False)
    for name in spaces:
        kube.delete("namespace", name)


def results(kube, only):
    """Runs the suite; each of its tests is a result."""
    work = kube.cluster.state / "conformance"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    # What a run that was broken off left would be taken for this one's.
    for name in ("gateway-conformance-mesh", "gateway-conformance-mesh-consumer"):
        kube.delete("namespace", name)
    command = [
        str(cluster.PROGRAMS / "gateway-api-conformance"),
        *("-test.v", "-test.run=^TestConformance$", f"-test.timeout={BOUND - 30}s"),
        f"--conformance-profiles={PROFILES}",
        f"--supported-features={','.join(CORE + EXTENDED)}",
        f"--namespace-labels={LABELS}",
        *("--organization=weir", "--project=weir", "--url=https://weir.dev"),
        *("--version=dev", "--contact=weir"),
        f"--report-output={work}/report.yaml",
        # Kinds of the experimental channel are in the cluster too.
        "--allow-crds-mismatch",
    ]
    if only:
        command.append(f"--run-test={only}")
    with open(work / "log", "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=cluster.die_with_parent
        )
        try:
            process.wait(timeout=BOUND)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # The cluster's own directory goes with it.
    shutil.copytree(work, KEPT, dirs_exist_ok=True)
    yield from read((work / "log").read_text(), process.returncode)


def read(log, code):
    """Each test's result by the lines of `go test -v`."""
    found = []
    for line in log.splitlines():
        match = re.match(r"    --- (PASS|FAIL|SKIP): TestConformance/(\S+) \(", line)
        if match:
            word = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}[match[1]]
            found.append((match[2], word, why(log, match[2]) if word == "failed" else ""))
    # Tests that need a Gateway are not of these profiles.
    yield from (result for result in found if result[1] != "skipped" or result[0].startswith("Mesh"))
    if not any(word == "passed" for _, word, _ in found) or (
        code != 0 and not any(word == "failed" for _, word, _ in found)
    ):
        tail = "\n".join(log.splitlines()[-15:])
        yield "the suite itself", "failed", f"ended with {code}; see {KEPT}/log\n{tail}"


def why(log, name):
    """The last that a test told before it failed."""
    told = [line.strip() for line in log.splitlines() if "Error:" in line or "expectation failed" in line]
    return f"see {KEPT}/log" if not told else f"see {KEPT}/log; for example: {told[-1][:300]}"
