"""What the chart brought goes with it, and applications run on."""

from harness import mesh
from harness.kube import app, http

SPACE = "after"


def setup(kube):
    mesh.install(kube)
    space = kube.make(SPACE, mesh.INJECTED)
    space.apply(*app("echo"), *app("caller"))
    space.rolled_out("echo-v1", "caller-v1")


def teardown(kube):
    kube.delete("namespace", SPACE)


def test_nothing_of_the_chart_is_left(kube):
    mesh.uninstall(kube)
    kube.wait(
        lambda: not [name for name in mesh.left_over(kube) if "CustomResourceDefinition" not in name],
        "no object of the cluster that is Weir's",
    )


def test_pods_with_sidecars_keep_serving(kube):
    space = kube.within(SPACE)
    caller = space.pods("app=caller")[0]
    status, body = http(f"http://{caller['status']['podIP']}:8080/call/echo:80/")
    assert status == 200, body


def test_namespaces_are_clean_after_a_restart(kube):
    """Without injector, new pods have no sidecar and work."""
    space = kube.within(SPACE)
    for name in ("echo-v1", "caller-v1"):
        space.kubectl("rollout", "restart", f"deployment/{name}")
    space.rolled_out("echo-v1", "caller-v1")
    for pod in space.pods("app"):
        assert len(pod["spec"].get("initContainers", [])) == 0, pod["spec"]
    address = space.pods("app=caller")[0]["status"]["podIP"]
    space.wait(lambda: http(f"http://{address}:8080/call/echo:80/")[0] == 200, "plain traffic")


def test_config_maps_of_namespaces_are_gone(kube):
    space = kube.within(SPACE)
    space.wait(lambda: not space.exists("configmap", "weir-trust-bundle"), "no trust bundle", seconds=30)


def test_definitions_go_when_asked(kube):
    """Kept by default with all policies; deleting them by hand leaves nothing."""
    for name in mesh.left_over(kube):
        kind, _, definition = name.partition("/")
        assert kind == "CustomResourceDefinition", name
        kube.delete("crd", definition)
    assert mesh.left_over(kube) == []
    kube.delete("namespace", mesh.NAMESPACE)
