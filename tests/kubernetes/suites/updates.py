"""Rolling updates of everything, under load from within and through the gateway."""

import contextlib

from harness import mesh
from harness.kube import app

SPACE = "updates"
RATE = "--rate=40"


def setup(kube):
    mesh.install(kube, controlPlane__replicas="2", gateway__replicas="2")
    space = kube.make(SPACE, mesh.INJECTED)
    space.apply(*app("echo", replicas=2))
    space.apply(mesh.gateway("public"))
    space.apply(
        mesh.http_route("echo", {"name": "public"}, [{"backendRefs": [{"name": "echo", "port": 80}]}])
    )
    space.rolled_out("echo-v1")
    space.wait(lambda: mesh.accepted(space.get("httproute", "echo")), "the route's status")


def teardown(kube):
    kube.delete("namespace", SPACE)
    mesh.install(kube)


@contextlib.contextmanager
def under_load(kube):
    """Nothing may fail in it: HTTP and gRPC within the mesh, and HTTP through the gateway,
    by connections that are kept and by a new one for each request."""
    space = kube.within(SPACE)
    through = f"http://weir-gateway.{mesh.NAMESPACE}/"
    always = (RATE, "--count=1000000", "--method=POST")
    without = {"weir.dev/inject": "disabled"}
    loads = [
        space.load("within-http", "http://echo/", *always),
        space.load("within-grpc", "grpc://echo:7070", *always),
        space.load("from-outside", through, *always, labels=without),
        space.load("from-outside-anew", through, *always, "--new-connections", labels=without),
    ]
    try:
        yield
    finally:
        reports = {load.name: load.stop() for load in loads}
    for name, report in reports.items():
        assert report["sent"] > 0 and report["failed"] == 0, (name, report)


def restart(kube, *deployments):
    for name in deployments:
        kube.kubectl("rollout", "restart", f"deployment/{name}")
        kube.rolled_out(name)


def test_the_service(kube):
    with under_load(kube):
        restart(kube.within(SPACE), "echo-v1")


def test_the_sidecar_image(kube):
    """The same one by another name, so that the pod's image is a new one."""
    space = kube.within(SPACE)
    image = {"weir.dev/router-image": "docker.io/weir/weir-router:dev"}
    with under_load(kube):
        space.patch("deployment", "echo-v1", {"spec": {"template": {"metadata": {"annotations": image}}}})
        space.rolled_out("echo-v1")
    names = {c["name"]: c["image"] for c in space.pods("app=echo")[0]["spec"]["initContainers"]}
    assert names["weir-router"] == image["weir.dev/router-image"], names


def test_the_control_plane(kube):
    with under_load(kube):
        restart(kube.within(mesh.NAMESPACE), "weir-control-plane")
        # The API may be away until the next one leads; traffic is not.
        shift = ("shift", f"echo.{SPACE}", "v1=100", "--wait")
        kube.wait(lambda: mesh.weir(kube, *shift), "the API takes a shift again", seconds=30)


def test_the_gateway(kube):
    with under_load(kube):
        restart(kube.within(mesh.NAMESPACE), "weir-gateway")


def test_a_chart_upgrade(kube):
    with under_load(kube):
        mesh.install(
            kube,
            controlPlane__replicas="2",
            gateway__replicas="2",
            controlPlane__podAnnotations__upgraded="yes",
        )
