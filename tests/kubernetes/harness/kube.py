"""What suites do to a cluster: apply, wait, exec, logs, load.

The suites run within the cluster's network: addresses of pods and Services are
reached directly, by urllib or a socket.
"""

import contextlib
import json
import pathlib
import subprocess
import urllib.error
import urllib.request

from . import cluster
from .cluster import ClusterError, wait_for

APP = "docker.io/local/app:1"
# From a change to what must follow from it, on a busy machine.
SECONDS = 90


class Broken(Exception):
    """What waiting longer would not mend."""


class Kube:
    """The API of one cluster, with `namespace` as the default of each call.

    The environment says which cluster: see `Cluster.environment`.
    """

    def __init__(self, it, namespace="default"):
        self.cluster = it
        self.namespace = namespace

    def within(self, namespace):
        return Kube(self.cluster, namespace)

    def kubectl(self, *arguments, check=True, timeout=60, **options):
        """Runs kubectl; its output, or with check=False the whole result."""
        result = cluster.run(
            *("kubectl", f"--namespace={self.namespace}"),
            *map(str, arguments),
            check=check,
            timeout=timeout,
            **options,
        )
        return result.stdout if check else result

    # Objects

    def apply(self, *objects, server_side=False, check=True):
        """Applies objects (dictionaries) or YAML (text, or a file by its path)."""
        documents = []
        for thing in objects:
            if isinstance(thing, pathlib.Path):
                thing = thing.read_text()
            documents.append(thing if isinstance(thing, str) else json.dumps(thing))
        # Text that begins like JSON would be read as JSON alone.
        text = "---\n" + "\n---\n".join(documents)
        mode = ["--server-side", "--force-conflicts"] if server_side else []
        return self.kubectl("apply", *mode, "-f", "-", input=text, check=check)

    def apply_definitions(self):
        """The Gateway API's kinds, unless they are there; the API server knows them then.

        Of the experimental channel: it has all fields that Weir reads.
        """
        if self.exists("crd", "httproutes.gateway.networking.k8s.io"):
            return
        # They are too large for the annotation of client-side apply.
        self.kubectl(
            *("apply", "--server-side", "--force-conflicts"),
            *("-f", cluster.PROGRAMS / "gateway-api-experimental.yaml"),
            timeout=120,
        )
        self.condition("crd", "httproutes.gateway.networking.k8s.io", "Established")
        self.wait(lambda: self.get("httproutes") is not None, "the kinds of the Gateway API")

    def delete(self, kind, name, wait=True, check=True):
        return self.kubectl(
            *("delete", kind, name, "--ignore-not-found", f"--wait={str(wait).lower()}"),
            check=check,
            timeout=180,
        )

    def get(self, kind, name=None, selector=None, all_namespaces=False):
        """One object, or a list of them when no name is given."""
        arguments = ["get", kind, "--output=json"]
        if name:
            arguments.append(name)
        if selector:
            arguments.append(f"--selector={selector}")
        if all_namespaces:
            arguments.append("--all-namespaces")
        found = json.loads(self.kubectl(*arguments))
        return found if name else found["items"]

    def exists(self, kind, name):
        return bool(self.kubectl("get", kind, name, "--ignore-not-found", "--output=name"))

    def patch(self, kind, name, change, subresource=None):
        extra = [f"--subresource={subresource}"] if subresource else []
        return self.kubectl("patch", kind, name, "--type=merge", f"--patch={json.dumps(change)}", *extra)

    # Waiting

    def wait(self, condition, what, seconds=SECONDS, every=0.2):
        """Waits for a condition, which may also fail in between by an exception."""
        last = None

        def tried():
            nonlocal last
            try:
                return condition()
            except (ClusterError, OSError, KeyError, ValueError, AssertionError) as error:
                last = error
                return None

        try:
            return wait_for(tried, seconds, what, every)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; last: {last}" if last else str(error)) from None

    def rolled_out(self, *names, seconds=180):
        """Waits until Deployments (or KIND/NAME) have all their pods ready and new.

        A pod that ends again and again is told at once.
        """
        for name in names:

            def done(full=name if "/" in name else f"deployment/{name}"):
                status = self.kubectl("rollout", "status", full, "--watch=false", check=False)
                if "successfully rolled out" in status.stdout:
                    return True
                if crashing := self.crashing(full.partition("/")[2]):
                    raise Broken(f"pods end again and again: {', '.join(crashing)}")
                return False

            wait_for(done, seconds, f"{name} is rolled out", every=0.3)

    def condition(self, kind, name, wanted, status="True", seconds=SECONDS):
        """Waits until an object's status has a condition."""
        expect = f"--for=condition={wanted}={status}"
        self.kubectl("wait", f"{kind}/{name}", expect, f"--timeout={seconds}s", timeout=seconds + 10)

    # Pods

    def pods(self, selector):
        """Ready pods that are not going away."""
        return [pod for pod in self.get("pods", selector=selector) if is_ready(pod)]

    def pod(self, selector):
        """One ready pod's name, waiting for it."""
        found = self.wait(lambda: self.pods(selector), f"a ready pod {selector}")
        return found[0]["metadata"]["name"]

    def crashing(self, deployment):
        """Its newest pods of which a container ended three times or more and waits."""
        pods = [
            pod
            for pod in self.get("pods", selector="pod-template-hash")
            if pod["metadata"]["ownerReferences"][0]["name"].rpartition("-")[0] == deployment
        ]
        newest = max((pod["metadata"]["creationTimestamp"] for pod in pods), default=None)
        return [
            pod["metadata"]["name"]
            for pod in pods
            if pod["metadata"]["creationTimestamp"] == newest
            for kind in ("containerStatuses", "initContainerStatuses")
            for status in pod["status"].get(kind, [])
            if status["restartCount"] >= 3 and "waiting" in status["state"]
        ]

    def logs(self, pod, container=None, previous=False):
        extra = [f"--container={container}"] if container else []
        if previous:
            extra.append("--previous")
        return self.kubectl("logs", pod, *extra)

    def exec(self, pod, *command, container=None, check=True, timeout=60, **options):
        extra = [f"--container={container}"] if container else []
        return self.kubectl("exec", pod, *extra, "--", *command, check=check, timeout=timeout, **options)

    def ask(self, pod, url, *flags, container="app", check=True):
        """Asks from within a pod. Its answer as a dictionary of lists by name.

        Flags: --method=POST, -H name:value, --count=10, --timeout=2s. Names are
        StatusCode, Hostname, ServiceVersion, Proto, RequestHeader, ResponseHeader,
        Body, Error.
        """
        result = self.exec(pod, "client", url, *flags, container=container, check=False)
        if check and result.returncode != 0:
            raise ClusterError(f"{pod} asks {url}: {result.stdout} {result.stderr}")
        answer = {}
        for line in result.stdout.splitlines():
            name, found, value = line.partition("] ")[2].partition("=")
            if found:
                answer.setdefault(name, []).append(value)
        return answer

    @contextlib.contextmanager
    def port_forward(self, target, port):
        """A local port (within the cluster's network) that leads to a pod's."""
        process = subprocess.Popen(
            [
                *("kubectl", f"--namespace={self.namespace}"),
                *("port-forward", target, f":{port}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=cluster.die_with_parent,
        )
        try:
            # Forwarding from 127.0.0.1:41233 -> 8080
            line = process.stdout.readline()
            if " -> " not in line:
                raise ClusterError(f"port-forward to {target}: {process.stderr.read()}")
            yield int(line.split(" -> ")[0].rpartition(":")[2])
        finally:
            process.terminate()
            process.wait(timeout=10)
            process.stdout.close()
            process.stderr.close()

    def address(self, service):
        """A Service's address in the cluster."""
        return self.get("service", service)["spec"]["clusterIP"]

    # Namespaces

    def make(self, name, labels=None):
        """A namespace in which pods can be made."""
        space = self.within(name)
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": labels or {}},
            }
        )
        space.wait(lambda: space.exists("serviceaccount", "default"), f"account of {name}")
        return space

    @contextlib.contextmanager
    def fresh(self, name, labels=None):
        """A namespace that is gone afterwards; what went on in it is told on failure."""
        space = self.make(name, labels)
        try:
            yield space
        except BaseException:
            space.tell()
            raise
        finally:
            self.delete("namespace", name)

    def tell(self):
        """Prints what helps to see why something failed here."""
        for what in (["get", "pods", "-o", "wide"], ["get", "events", "--sort-by=.lastTimestamp"]):
            result = self.kubectl(*what, check=False)
            print("\n".join((result.stdout + result.stderr).splitlines()[-30:]))
        for pod in self.get("pods"):
            name = pod["metadata"]["name"]
            result = self.kubectl("logs", name, "--all-containers", "--prefix", "--tail=15", check=False)
            print(result.stdout + result.stderr)

    # Load

    def load(self, name, url, *flags, labels=None, annotations=None, account="default"):
        """Starts a load in a pod of its own; see `Load`."""
        return Load(self, name, url, flags, labels or {}, annotations or {}, account)


class Load:
    """A constant load from a pod. `stop` ends it and gives its report.

    Flags of `app load`: --rate, --count, --connections, --method, --header,
    --new-connections, --timeout.
    """

    def __init__(self, kube, name, url, flags, labels, annotations, account):
        self.kube = kube
        self.name = name
        kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "labels": {"app": name, **labels},
                    "annotations": annotations,
                },
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": account,
                    "terminationGracePeriodSeconds": 5,
                    "containers": [
                        {
                            "name": "app",
                            "image": APP,
                            "command": ["/app", "load", f"--url={url}", *flags],
                        }
                    ],
                },
            }
        )
        kube.wait(self._runs, f"load {name} runs")

    def _runs(self):
        statuses = self.kube.get("pod", self.name)["status"].get("containerStatuses", [])
        return any("running" in s["state"] or "terminated" in s["state"] for s in statuses)

    def _ended(self):
        for status in self.kube.get("pod", self.name)["status"]["containerStatuses"]:
            if status["name"] == "app":
                return "terminated" in status["state"]
        return False

    def stop(self, seconds=60):
        """The report: sent, ok, failed, codes, versions, pods, failures, p99Ms ..."""
        # It may have ended by its count.
        self.kube.exec(self.name, "/app", "stop", container="app", check=False)
        return self.wait(seconds)

    def wait(self, seconds=SECONDS):
        """The report of a load that ends by its count."""
        self.kube.wait(self._ended, f"load {self.name} ends", seconds)
        text = self.kube.logs(self.name, "app").strip().splitlines()
        report = json.loads(text[-1]) if text else None
        if not isinstance(report, dict):
            raise ClusterError(f"load {self.name}: {text}")
        self.kube.delete("pod", self.name)
        return report


def is_ready(pod):
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def app(name, version="v1", replicas=1, flags=(), **pod):
    """A Deployment and a Service of the test application.

    Ports: 80 -> 8080 HTTP/1.1 and h2c, 7070 gRPC, 9090 TCP that sends back, 9091 TCP
    that speaks first. Further keys go into the pod's spec.
    """
    labels = {"app": name, "version": version}
    container = {
        "name": "app",
        "image": APP,
        "args": [
            *("--port=8080", "--grpc=7070", "--tcp=9090", "--greet=9091"),
            *(f"--version={version}", *flags),
        ],
        "env": [
            field("POD_NAME", "metadata.name"),
            field("NAMESPACE", "metadata.namespace"),
            {"name": "SERVICE_NAME", "value": name},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": 8080},
            "periodSeconds": 1,
        },
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{name}-{version}"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 30, "containers": [container], **pod},
            },
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"},
                {"name": "grpc", "port": 7070, "appProtocol": "grpc"},
                {"name": "tcp", "port": 9090, "appProtocol": "tcp"},
                {"name": "greet", "port": 9091, "appProtocol": "tcp"},
            ],
        },
    }
    return deployment, service


def field(name, path):
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def http(url, timeout=10, **headers):
    """GET from where the suite runs; status and body as text."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
