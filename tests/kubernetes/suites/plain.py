"""The cluster itself, without Weir: what the other suites take for granted."""

import base64
import json
import pathlib
import socket
import tempfile

from harness import cluster
from harness.kube import APP, app, http

NAMESPACE = "plain"


def setup(kube):
    space = kube.make(NAMESPACE)
    space.apply(*app("echo", "v1", replicas=2), *app("caller"))
    space.rolled_out("echo-v1", "caller-v1")


def teardown(kube):
    kube.delete("namespace", NAMESPACE)


def test_service_names_and_addresses_reach_all_pods(kube):
    space = kube.within(NAMESPACE)
    caller = space.pod("app=caller")
    expected = {pod["metadata"]["name"] for pod in space.pods("app=echo")}
    assert len(expected) == 2

    def seen(url):
        # A connection for each question: kube-proxy chooses by connection.
        return {space.ask(caller, url)["Hostname"][0] for _ in range(6)}

    for host in ("echo", f"echo.{NAMESPACE}.svc.cluster.local", space.address("echo")):
        space.wait(lambda host=host: seen(f"http://{host}/") == expected, f"both pods by {host}")


def test_pods_see_each_others_addresses(kube):
    space = kube.within(NAMESPACE)
    caller = space.pods("app=caller")[0]
    answer = space.ask(caller["metadata"]["name"], "http://echo/")
    assert answer["IP"][0].rpartition(":")[0] == caller["status"]["podIP"], answer


def test_grpc_and_http2_without_tls(kube):
    space = kube.within(NAMESPACE)
    caller = space.pod("app=caller")
    assert space.ask(caller, "grpc://echo:7070")["StatusCode"] == ["200"]
    assert space.ask(caller, "h2c://echo:80/")["Proto"] == ["HTTP/2.0"]


def test_tcp_echo_and_server_that_speaks_first(kube):
    space = kube.within(NAMESPACE)
    address = space.address("echo")
    with socket.create_connection((address, 9090), timeout=10) as connection:
        connection.sendall(b"hello")
        assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
    with socket.create_connection((address, 9091), timeout=10) as connection:
        assert connection.recv(4, socket.MSG_WAITALL) == b"220 "


def test_headless_service_names_lead_to_pods(kube):
    space = kube.within(NAMESPACE)
    space.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "headless"},
            "spec": {"clusterIP": "None", "selector": {"app": "echo"}, "ports": [{"port": 8080}]},
        }
    )
    caller = space.pod("app=caller")
    space.wait(lambda: space.ask(caller, "http://headless:8080/"), "the headless name")


def test_calls_go_on_to_a_further_service(kube):
    space = kube.within(NAMESPACE)
    status, body = http(f"http://{space.address('caller')}/call/echo:80/call/echo:80/end")
    assert status == 200, body
    assert json.loads(body)["next"]["next"]["path"] == "/end"


def test_exec_logs_and_port_forward(kube):
    space = kube.within(NAMESPACE)
    echo = space.pod("app=echo")
    token = space.exec(echo, "/app", "read", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    assert token.count(".") == 2
    assert "listening on 8080" in space.logs(echo)
    with space.port_forward(f"pod/{echo}", 8080) as port:
        status, body = http(f"http://127.0.0.1:{port}/forwarded")
    assert status == 200 and json.loads(body)["pod"] == echo


def test_native_sidecar_starts_first_and_outlives(kube):
    """The container started as an init container is there for all of the load's life."""
    space = kube.within(NAMESPACE)
    space.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "with-sidecar", "labels": {"app": "with-sidecar"}},
            "spec": {
                "restartPolicy": "Never",
                "initContainers": [
                    {
                        "name": "sidecar",
                        "image": APP,
                        "args": ["--port=8080"],
                        "restartPolicy": "Always",
                        "startupProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1},
                    }
                ],
                "containers": [
                    {
                        "name": "app",
                        "image": APP,
                        "command": ["/app", "load", "--url=http://127.0.0.1:8080/", "--count=100"],
                    }
                ],
            },
        }
    )
    phase = "--for=jsonpath={.status.phase}=Succeeded"
    space.kubectl("wait", "pod/with-sidecar", phase, "--timeout=60s", timeout=70)
    report = json.loads(space.logs("with-sidecar", "app").splitlines()[-1])
    assert report["sent"] == report["ok"] == 100, report


def redirect_pod(name, **security):
    """A pod whose port 9999 is redirected to 8080 by an init container."""
    rules = (
        "table ip test { chain in { type nat hook prerouting priority dstnat; "
        "tcp dport 9999 redirect to :8080; }; }"
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "initContainers": [
                {
                    "name": "rules",
                    "image": "docker.io/local/nft:1",
                    "args": [rules],
                    "securityContext": {
                        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        **security,
                    },
                }
            ],
            "containers": [
                {
                    "name": "app",
                    "image": APP,
                    "args": ["--port=8080"],
                    "securityContext": {
                        "runAsNonRoot": True,
                        "readOnlyRootFilesystem": True,
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ],
        },
    }


def test_init_container_with_net_admin_redirects_by_nftables(kube):
    space = kube.within(NAMESPACE)
    space.apply(redirect_pod("redirected"))
    space.condition("pod", "redirected", "Ready")
    address = space.get("pod", "redirected")["status"]["podIP"]
    status, body = http(f"http://{address}:9999/")
    assert status == 200 and json.loads(body)["httpPort"] == "8080"


def test_restricted_namespace_refuses_net_admin(kube):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with kube.fresh("plain-restricted", labels) as space:
        result = space.apply(redirect_pod("refused"), check=False)
        assert result.returncode != 0 and "NET_ADMIN" in result.stderr, result


def test_api_server_asks_a_webhook_through_its_service(kube):
    space = kube.within(NAMESPACE)
    name = f"webhook.{NAMESPACE}.svc"
    with tempfile.TemporaryDirectory() as work:
        cluster.run(
            *("openssl", "req", "-x509", "-nodes", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-days", "1", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
            *("-keyout", f"{work}/tls.key", "-out", f"{work}/tls.crt"),
        )
        space.kubectl("create", "secret", "tls", "webhook", f"--cert={work}/tls.crt", f"--key={work}/tls.key")
        bundle = base64.b64encode(pathlib.Path(work, "tls.crt").read_bytes()).decode()
    volumes = [{"name": "tls", "secret": {"secretName": "webhook"}}]
    flags = ("--port=8443", "--tls=8443", "--crt=/tls/tls.crt", "--key=/tls/tls.key")
    deployment, service = app("webhook", flags=flags, volumes=volumes)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["volumeMounts"] = [{"name": "tls", "mountPath": "/tls"}]
    service["spec"]["ports"].append({"name": "https", "port": 443, "targetPort": 8443})
    space.apply(deployment, service)
    space.rolled_out("webhook-v1")
    space.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "plain-test"},
            "webhooks": [
                {
                    "name": "labels.plain.test",
                    "clientConfig": {
                        "service": {"name": "webhook", "namespace": NAMESPACE, "path": "/admit"},
                        "caBundle": bundle,
                    },
                    "rules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE"],
                            "resources": ["configmaps"],
                        }
                    ],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                    "failurePolicy": "Fail",
                }
            ],
        }
    )
    try:
        labelled = {"name": "seen", "labels": {"a": "b"}}
        wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": labelled}

        def admitted():
            space.delete("configmap", "seen")
            space.apply(wanted)
            return space.get("configmap", "seen")["metadata"]["labels"].get("admitted") == "yes"

        space.wait(admitted, "the webhook's label")
    finally:
        space.delete("mutatingwebhookconfiguration", "plain-test")


def test_token_review_knows_a_projected_token(kube):
    space = kube.within(NAMESPACE)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "token"},
        "spec": {
            "containers": [
                {
                    "name": "app",
                    "image": APP,
                    "args": ["--port=8080"],
                    "volumeMounts": [{"name": "token", "mountPath": "/token"}],
                }
            ],
            "volumes": [
                {
                    "name": "token",
                    "projected": {
                        "sources": [
                            {
                                "serviceAccountToken": {
                                    "path": "token",
                                    "audience": "weir",
                                    "expirationSeconds": 3600,
                                }
                            }
                        ]
                    },
                }
            ],
        },
    }
    space.apply(pod)
    space.condition("pod", "token", "Ready")
    token = space.exec("token", "/app", "read", "/token/token")

    def review(audience):
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        said = space.kubectl("create", "-f", "-", "--output=json", input=json.dumps(asked))
        return json.loads(said)["status"]

    good = review("weir")
    assert good["authenticated"], good
    assert good["user"]["username"] == f"system:serviceaccount:{NAMESPACE}:default", good
    assert good["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["token"], good
    assert not review("other").get("authenticated"), "a token for one audience is good for another"


def test_config_map_changes_reach_pods(kube):
    space = kube.within(NAMESPACE)

    def config(text):
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "bundle", "labels": {"a": "b"}},
            "data": {"ca.pem": text},
        }

    space.apply(config("old"))
    deployment, service = app("reader", volumes=[{"name": "bundle", "configMap": {"name": "bundle"}}])
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["volumeMounts"] = [{"name": "bundle", "mountPath": "/bundle"}]
    space.apply(deployment, service)
    space.rolled_out("reader-v1")
    pod = space.pod("app=reader")
    space.apply(config("new"))
    space.wait(lambda: space.exec(pod, "/app", "read", "/bundle/ca.pem") == "new", "the new text", seconds=120)


def test_rolling_update_under_load_loses_nothing(kube):
    """The baseline for the mesh: this application under plain Kubernetes."""
    space = kube.within(NAMESPACE)
    flags = ("--rate=50", "--count=100000", "--new-connections", "--method=POST")
    load = space.load("roller", "http://echo/", *flags)
    for color in ("blue", "green"):
        change = {"spec": {"template": {"metadata": {"annotations": {"color": color}}}}}
        space.patch("deployment", "echo-v1", change)
        space.rolled_out("echo-v1")
    report = load.stop()
    assert report["failed"] == 0, report
    assert len(report["pods"]) >= 4, report


def test_traffic_goes_on_without_the_api_server(kube):
    space = kube.within(NAMESPACE)
    address = space.address("echo")
    kube.cluster.stop_component("kube-apiserver")
    try:
        assert http(f"http://{address}/")[0] == 200
    finally:
        kube.cluster.start_component("kube-apiserver")
    kube.wait(lambda: kube.kubectl("get", "--raw", "/readyz") == "ok", "the API server is back")
    space.apply(*app("later"))
    space.rolled_out("later-v1")
