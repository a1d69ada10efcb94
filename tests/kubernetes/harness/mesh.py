"""Weir in a cluster: installed by the chart, asked by its command line."""

import base64
import json
import os

from . import cluster, images
from .kube import http

NAMESPACE = "weir-system"
CHART = images.REPOSITORY / "helm/weir"
HELM = str(cluster.PROGRAMS / "helm")
INJECTED = {"weir.dev/inject": "enabled"}
ADMIN_PORT = 15020
VALUES = {"router.accessLog": "true"}


def helm(*arguments, timeout=240, check=True):
    result = cluster.run(HELM, *map(str, arguments), timeout=timeout, check=check)
    return result.stdout if check else result


def install(kube, **values):
    """Installs the chart, or brings an installation to these values, and waits.

    `values` are names with `__` for the dots: tracing__jaeger__install="true".
    """
    kube.apply_definitions()
    tags = {
        "image.tag": images.tag("weir"),
        "router.image.tag": images.tag("weir-router"),
        "cni.image.tag": images.tag("weir-cni"),
    }
    wanted = VALUES | {name.replace("__", "."): value for name, value in values.items()}
    settings = [f"--set={name}={value}" for name, value in wanted.items()]
    # A digest of digits alone is no number.
    settings += [f"--set-string={name}={value}" for name, value in tags.items()]
    helm(
        *("upgrade", "--install", "weir", CHART, "--namespace", NAMESPACE, "--create-namespace"),
        *settings,
    )
    ready(kube)


def ready(kube):
    """Waits until all of the chart's Deployments are as they should be."""
    system = kube.within(NAMESPACE)
    try:
        for deployment in system.get("deployments"):
            system.rolled_out(deployment["metadata"]["name"])
    except Exception:
        system.tell()
        raise


def uninstall(kube):
    helm("uninstall", "weir", "--namespace", NAMESPACE, "--wait", "--ignore-not-found")


def weir(kube, *arguments, check=True, timeout=60):
    """Runs Weir's command line against the cluster's control plane.

    The suites are in the cluster's network; a user would forward the port.
    """
    system = kube.within(NAMESPACE)
    token = system.get("secret", "weir-api-token")["data"]["token"]
    environment = dict(
        os.environ,
        WEIR_CONTROL=f"http://{system.address('weir-control-plane')}:15011",
        WEIR_TOKEN=base64.b64decode(token).decode(),
    )
    program = str(images.program("weir"))
    result = cluster.run(program, *arguments, env=environment, check=check, timeout=timeout)
    return result.stdout if check else result


def caller(answer):
    """The identity of who asked, as the router beside the application told it; or none."""
    for line in answer.get("RequestHeader", []):
        name, _, value = line.partition(":")
        if name.lower() == "x-forwarded-client-cert":
            return value.partition("URI=")[2].split(";")[0].split(",")[0].strip('"')
    return None


def metrics(pod):
    """The router's metrics: text of its /metrics, from outside of the pod."""
    status, text = http(f"http://{pod['status']['podIP']}:{ADMIN_PORT}/metrics")
    assert status == 200, text
    return text


def metric(pod, name, **labels):
    """The sum of a metric's samples that have these labels."""
    total = 0.0
    for line in metrics(pod).splitlines():
        if not line.startswith(name) or line[len(name) : len(name) + 1] not in ("{", " "):
            continue
        if all(f'{key}="{value}"' in line for key, value in labels.items()):
            total += float(line.rpartition(" ")[2])
    return total


def split(name, sticky=None, **weights):
    """A TrafficSplit."""
    spec = {"versions": [{"name": version, "weight": weight} for version, weight in weights.items()]}
    if sticky:
        spec["sticky"] = sticky
    return {
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "TrafficSplit",
        "metadata": {"name": name},
        "spec": spec,
    }


def http_route(name, parent, rules, hostnames=None):
    """An HTTPRoute; `parent` is {"name": ..., "kind": "Service", "group": ""} or a Gateway's."""
    spec = {"parentRefs": [parent], "rules": rules}
    if hostnames:
        spec["hostnames"] = hostnames
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": spec,
    }


def gateway(name, port=80, namespaces="All"):
    """A Gateway of Weir's class with one HTTP listener."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name},
        "spec": {
            "gatewayClassName": "weir",
            "listeners": [
                {
                    "name": "http",
                    "port": port,
                    "protocol": "HTTP",
                    "allowedRoutes": {"namespaces": {"from": namespaces}},
                }
            ],
        },
    }


def gateway_url(kube, path="/"):
    return f"http://{kube.within(NAMESPACE).address('weir-gateway')}{path}"


def accepted(route):
    """Whether every parent of a route says Accepted and ResolvedRefs."""
    parents = route.get("status", {}).get("parents", [])
    wanted = {"Accepted", "ResolvedRefs"}
    return bool(parents) and all(
        wanted <= {c["type"] for c in parent["conditions"] if c["status"] == "True"} for parent in parents
    )


def left_over(kube):
    """Names of objects that have to do with Weir, outside its namespace."""
    kinds = (
        "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,"
        "validatingwebhookconfigurations,gatewayclasses,priorityclasses,customresourcedefinitions"
    )
    found = json.loads(kube.kubectl("get", kinds, "--output=json"))["items"]
    return [
        f"{thing['kind']}/{thing['metadata']['name']}"
        for thing in found
        if "weir" in thing["metadata"]["name"]
    ]
