"""One request through the gateway and three services is one trace in Jaeger."""

import json
import secrets

from harness import mesh
from harness.kube import app, http

SPACE = "tracing"
SERVICES = ("first", "second", "third")


def setup(kube):
    mesh.install(kube, tracing__jaeger__install="true")
    space = kube.make(SPACE, mesh.INJECTED)
    for name in SERVICES:
        space.apply(*app(name))
    space.apply(mesh.gateway("public"))
    space.apply(
        mesh.http_route("first", {"name": "public"}, [{"backendRefs": [{"name": "first", "port": 80}]}])
    )
    space.rolled_out(*(f"{name}-v1" for name in SERVICES))


def teardown(kube):
    kube.delete("namespace", SPACE)
    mesh.install(kube)


def test_a_trace_has_every_hop(kube):
    trace = secrets.token_hex(16)
    parent = f"00-{trace}-{secrets.token_hex(8)}-01"
    url = mesh.gateway_url(kube, "/call/second:80/call/third:80/end")

    def asked():
        status, body = http(url, traceparent=parent)
        assert status == 200, (status, body)
        return True

    kube.wait(asked, "200 through gateway and three services")
    jaeger = f"http://{kube.within(mesh.NAMESPACE).address('weir-jaeger')}:16686"
    # Workloads by their Deployments.
    wanted = {f"weir-gateway.{mesh.NAMESPACE}", *(f"{name}-v1.{SPACE}" for name in SERVICES)}

    def found():
        status, body = http(f"{jaeger}/api/traces/{trace}")
        assert status == 200, body
        processes = json.loads(body)["data"][0]["processes"].values()
        names = {process["serviceName"] for process in processes}
        assert wanted <= names, (wanted - names, names)
        return True

    kube.wait(found, "every hop in Jaeger", seconds=60)


def test_spans_hang_together(kube):
    """Each span's parent is in the trace, but for the first one's."""
    jaeger = f"http://{kube.within(mesh.NAMESPACE).address('weir-jaeger')}:16686"
    trace = secrets.token_hex(16)
    root = secrets.token_hex(8)
    url = mesh.gateway_url(kube, "/call/second:80/call/third:80/end")
    assert http(url, traceparent=f"00-{trace}-{root}-01")[0] == 200

    def whole():
        status, body = http(f"{jaeger}/api/traces/{trace}")
        assert status == 200, body
        spans = json.loads(body)["data"][0]["spans"]
        known = {span["spanID"] for span in spans} | {root}
        # Two routers at each of the hops between services, the gateway and the first.
        assert len(spans) >= 6, [span["operationName"] for span in spans]
        return all(
            reference["spanID"] in known for span in spans for reference in span.get("references", [])
        )

    kube.wait(whole, "a whole trace", seconds=60)
