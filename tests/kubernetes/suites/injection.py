"""Which pods get a sidecar, what it looks like, and that applications do not mind."""

import copy

from harness import mesh
from harness.kube import APP, app, http

SPACE = "injection"


def setup(kube):
    mesh.install(kube)
    space = kube.make(SPACE, mesh.INJECTED)
    space.wait(lambda: space.exists("configmap", "weir-trust-bundle"), "the namespace's trust bundle")
    space.apply(*app("echo"))
    space.rolled_out("echo-v1")


def teardown(kube):
    kube.delete("namespace", SPACE)


def sidecar(pod):
    """The sidecar's container, or none."""
    for container in pod["spec"].get("initContainers", []):
        if container["name"] == "weir-router":
            return container
    return None


def single(name, annotations=None, labels=None, **spec):
    """One pod of the test application."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {}, "labels": {"app": name, **(labels or {})}},
        "spec": {"containers": [{"name": "app", "image": APP, "args": ["--port=8080"]}], **spec},
    }


def test_namespace_label_brings_a_native_sidecar(kube):
    pod = kube.within(SPACE).pods("app=echo")[0]
    container = sidecar(pod)
    assert container, pod["spec"]
    assert container["restartPolicy"] == "Always"
    assert "startupProbe" in container and "readinessProbe" in container
    security = container["securityContext"]
    assert security["runAsUser"] == 15000 and security["runAsNonRoot"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}, security
    status, _ = http(f"http://{pod['status']['podIP']}:{mesh.ADMIN_PORT}/ready")
    assert status == 200


def test_pod_annotation_and_label_win_over_the_namespace(kube):
    space = kube.within(SPACE)
    space.apply(single("without", {"weir.dev/inject": "disabled"}))
    space.apply(single("label-without", labels={"weir.dev/inject": "disabled"}))
    assert not sidecar(space.get("pod", "without"))
    assert not sidecar(space.get("pod", "label-without"))
    with kube.fresh("injection-off") as off:
        off.apply(single("with", labels={"weir.dev/inject": "enabled"}))
        assert sidecar(off.get("pod", "with"))
        off.apply(single("untouched"))
        assert not sidecar(off.get("pod", "untouched"))


def test_host_network_pods_are_left_alone(kube):
    space = kube.within(SPACE)
    space.apply(single("host", hostNetwork=True))
    assert not sidecar(space.get("pod", "host"))
    space.delete("pod", "host")


def test_annotations_set_resources_and_log_level(kube):
    space = kube.within(SPACE)
    wanted = {
        "weir.dev/cpu-request": "25m",
        "weir.dev/memory-limit": "99Mi",
        "weir.dev/log-level": "debug",
    }
    space.apply(single("tuned", wanted))
    container = sidecar(space.get("pod", "tuned"))
    assert container["resources"]["requests"]["cpu"] == "25m", container["resources"]
    assert container["resources"]["limits"]["memory"] == "99Mi", container["resources"]
    environment = {e["name"]: e.get("value") for e in container["env"]}
    assert environment["WEIR_LOG"] == "debug", environment


def test_a_wrong_annotation_is_refused_by_name(kube):
    result = kube.within(SPACE).apply(single("wrong", {"weir.dev/cpu-request": "lots"}), check=False)
    assert result.returncode != 0 and "weir.dev/cpu-request" in result.stderr, result


def test_probes_of_all_kinds_keep_working(kube):
    space = kube.within(SPACE)
    probes = {
        "http": {"httpGet": {"path": "/health", "port": 8080}},
        "tcp": {"tcpSocket": {"port": 8080}},
    }
    for name, probe in probes.items():
        pod = single(f"probe-{name}")
        pod["spec"]["containers"][0]["readinessProbe"] = {**probe, "periodSeconds": 1}
        pod["spec"]["containers"][0]["livenessProbe"] = {**copy.deepcopy(probe), "periodSeconds": 1}
        space.apply(pod)
    for name in probes:
        space.condition("pod", f"probe-{name}", "Ready")
        status = space.get("pod", f"probe-{name}")["status"]
        assert all(c["restartCount"] == 0 for c in status["containerStatuses"]), status


def test_a_probe_of_a_closed_port_still_fails(kube):
    """The sidecar accepts every connection; that must not make a dead port look alive."""
    space = kube.within(SPACE)
    pod = single("probe-closed")
    pod["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8099}, "periodSeconds": 1}
    space.apply(pod)

    def refused():
        events = space.get("events")
        return any(
            e["involvedObject"]["name"] == "probe-closed" and e["reason"] == "Unhealthy" for e in events
        )

    space.wait(refused, "an Unhealthy event of the closed port")
    ready = {c["type"]: c["status"] for c in space.get("pod", "probe-closed")["status"]["conditions"]}
    assert ready["Ready"] == "False", ready


def test_a_job_with_a_sidecar_ends(kube):
    space = kube.within(SPACE)
    space.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "once"},
            "spec": {
                "template": {
                    "spec": {
                        "restartPolicy": "Never",
                        "containers": [
                            {
                                "name": "app",
                                "image": APP,
                                # Asks as soon as it starts: the sidecar is ready by then.
                                "command": ["/app", "load", "--url=http://echo/", "--count=20"],
                            }
                        ],
                    }
                }
            },
        }
    )
    space.condition("job", "once", "Complete", seconds=60)
    assert '"failed":0' in space.logs("job/once", "app")


def test_restricted_namespace_is_served_by_the_cni_plugin(kube):
    mesh.install(kube, cni__enabled="true")
    labels = {
        **mesh.INJECTED,
        "pod-security.kubernetes.io/enforce": "restricted",
    }
    with kube.fresh("injection-restricted", labels) as space:
        restricted = {
            "securityContext": {
                "runAsNonRoot": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
        }
        objects = app("echo") + app("caller")
        for thing in objects:
            if thing["kind"] == "Deployment":
                template = thing["spec"]["template"]
                template["metadata"]["annotations"] = {"weir.dev/redirect": "cni"}
                template["spec"]["containers"][0].update(restricted)
        space.apply(*objects)
        space.rolled_out("echo-v1", "caller-v1")
        answer = space.ask(space.pod("app=caller"), "http://echo/")
        assert mesh.caller(answer) == f"spiffe://cluster.local/ns/{space.namespace}/sa/default", answer
    mesh.install(kube)
