"""How connections of a pod come to its router, without a mesh: by the init container,
and by the CNI plugin under the restricted Pod Security Standard.

The test application stands in for the router: it answers at the router's ports, and
says at which.
"""

import json

from harness.kube import APP, http

CNI = "docker.io/weir/weir-cni:dev"
ROUTER_UID = 15000
NOBODY = 65532
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
# Where no one is (RFC 5737): only a redirected connection gets an answer.
NOWHERE = "http://192.0.2.1:80/"


def secured(user, **more):
    return {
        "runAsUser": user,
        "runAsNonRoot": user != 0,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
        **more,
    }


def pod(name, verb, arguments, annotations):
    """What the injector makes of a pod, but for the router."""
    admin = secured(0, capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": annotations},
        "spec": {
            "initContainers": [
                {
                    "name": "weir-redirect",
                    "image": CNI,
                    "command": ["/weir-cni"],
                    "args": [verb, *arguments],
                    "securityContext": admin if verb == "redirect" else secured(NOBODY),
                },
                {
                    "name": "router",
                    "image": APP,
                    "args": ["--port=15001", "--port=15006", "--port=15020"],
                    "restartPolicy": "Always",
                    "startupProbe": {"httpGet": {"path": "/health", "port": 15020}, "periodSeconds": 1},
                    "securityContext": secured(ROUTER_UID),
                },
            ],
            "containers": [
                {
                    "name": "app",
                    "image": APP,
                    "args": ["--port=8080", "--port=8081"],
                    # Answered by the router's port, as every probe of the pod's ports.
                    "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1},
                    "securityContext": secured(NOBODY),
                }
            ],
        },
    }


def port_of(body):
    return json.loads(body)["httpPort"]


def check(space, name):
    """What is redirected of a pod that skips 8081 both ways."""
    space.condition("pod", name, "Ready")
    assert space.ask(name, NOWHERE)["ServicePort"] == ["15001"], "out of the pod"
    address = space.get("pod", name)["status"]["podIP"]
    for port, expected in ((8080, "15006"), (8081, "8081"), (15020, "15020")):
        answer = http(f"http://{address}:{port}/")[1]
        assert port_of(answer) == expected, f"into the pod at {port}: {answer}"
    # With itself.
    assert space.ask(name, "http://127.0.0.1:8080/")["ServicePort"] == ["8080"]
    assert space.ask(name, f"http://{address}:8080/")["ServicePort"] == ["8080"]
    # Skipped, so it goes to where no one is; and the router's own connections.
    for url, container in ((NOWHERE.replace(":80/", ":8081/"), "app"), (NOWHERE, "router")):
        answer = space.ask(name, url, "--timeout=1s", container=container, check=False)
        assert "ServicePort" not in answer, (url, container, answer)


SKIPS = ("--skip-inbound-ports=8081", "--skip-outbound-ports=8081")
ASKS = {
    "weir.dev/injected": "true",
    "weir.dev/redirect": "cni",
    "weir.dev/redirect-arguments": " ".join(SKIPS),
}


def test_init_container(kube):
    with kube.fresh("redirection-init") as space:
        space.apply(pod("init", "redirect", SKIPS, {}))
        check(space, "init")


def test_a_pod_that_nothing_redirects_does_not_start(kube):
    with kube.fresh("redirection-none", RESTRICTED) as space:
        space.apply(pod("none", "verify", (), ASKS))
        space.wait(lambda: "is the CNI plugin of Weir" in space.logs("none", "weir-redirect"), "its reason")


def installer(name="weir-cni"):
    hosts = {"bin": "/opt/cni/bin", "conf": "/etc/cni/net.d"}
    container = {
        "name": "install",
        "image": CNI,
        "args": ["install", "--bin-dir=/host/bin", "--conf-dir=/host/conf"],
        "securityContext": secured(0),
        "volumeMounts": [{"name": name, "mountPath": f"/host/{name}"} for name in hosts],
    }
    volumes = [{"name": name, "hostPath": {"path": path}} for name, path in hosts.items()]
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            # The new one is there before the old one goes.
            "updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], "volumes": volumes}},
        },
    }


def test_cni_plugin(kube):
    with kube.fresh("redirection-cni-system") as system:
        system.apply(installer())
        name = system.pod("app=weir-cni")
        system.wait(lambda: "installed in" in system.logs(name), "the plugin")
        with kube.fresh("redirection-cni", RESTRICTED) as space:
            space.apply(pod("cni", "verify", SKIPS, ASKS))
            check(space, "cni")
            # An update leaves the plugin where it is, all the time.
            system.kubectl("rollout", "restart", "daemonset/weir-cni")
            space.apply(pod("meanwhile", "verify", SKIPS, ASKS))
            system.rolled_out("daemonset/weir-cni")
            space.apply(pod("after", "verify", SKIPS, ASKS))
            for name in ("meanwhile", "after"):
                check(space, name)
    # With its installer it is gone.
    test_a_pod_that_nothing_redirects_does_not_start(kube)
