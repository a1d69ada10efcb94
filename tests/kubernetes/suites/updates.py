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
    """Nothing may fail in it: HTTP and gRPC within the mesh, HTTP through the gateway."""
    space = kube.within(SPACE)
    through = f"http://weir-gateway.{mesh.NAMESPACE}/"
    always = (RATE, "--count=1000000", "--method=POST")
    without = {"weir.dev/inject": "disabled"}
    loads = [
        space.load("within-http", "http://echo/", *always),
        space.load("within-grpc", "grpc://echo:7070", *always),
        space.load("from-outside", through, *always, "--new-connections", labels=without),
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
    """A new sidecar comes with a new pod: by annotation, as an upgrade's restart does."""
    with under_load(kube):
        change = {"spec": {"template": {"metadata": {"annotations": {"weir.dev/log-level": "debug"}}}}}
        kube.within(SPACE).patch("deployment", "echo-v1", change)
        kube.within(SPACE).rolled_out("echo-v1")


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
