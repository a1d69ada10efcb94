"""Between pods of the mesh: who is asked, by whom, and how requests are divided."""

import json
import socket

from harness import mesh
from harness.kube import app, http

SPACE = "traffic"
IDENTITY = f"spiffe://cluster.local/ns/{SPACE}/sa/default"


def setup(kube):
    mesh.install(kube)
    space = kube.make(SPACE, mesh.INJECTED)
    space.apply(*app("echo", "v1"), *app("echo", "v2"), *app("caller"))
    # Outside of the mesh, in the same cluster.
    outside, service = app("outside")
    outside["spec"]["template"]["metadata"]["labels"]["weir.dev/inject"] = "disabled"
    space.apply(outside, service)
    headless = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "headless"},
        "spec": {
            "clusterIP": "None",
            "selector": {"app": "echo", "version": "v1"},
            "ports": [{"name": "http", "port": 8080, "appProtocol": "http"}],
        },
    }
    space.apply(headless)
    space.rolled_out("echo-v1", "echo-v2", "caller-v1", "outside-v1")


def teardown(kube):
    kube.delete("namespace", SPACE)



def from_caller(kube, url, *flags, check=True):
    space = kube.within(SPACE)
    return space.ask(space.pod("app=caller"), url, *flags, check=check)


def versions(kube, url="http://echo/", count=100, *flags):
    """How many answers each version gave."""
    answer = from_caller(kube, url, f"--count={count}", *flags)
    found = answer.get("ServiceVersion", [])
    assert len(found) == count, (answer.get("StatusCode"), answer.get("Body"))
    return {version: found.count(version) for version in set(found)}


def test_http_by_service_name_is_mutual_tls(kube):
    kube.wait(lambda: mesh.caller(from_caller(kube, "http://echo/")) == IDENTITY, "the caller's identity")


def test_names_in_all_their_lengths_and_the_address(kube):
    space = kube.within(SPACE)
    for host in (f"echo.{SPACE}", f"echo.{SPACE}.svc.cluster.local", space.address("echo")):
        answer = from_caller(kube, f"http://{host}/")
        assert mesh.caller(answer) == IDENTITY, (host, answer)


def test_grpc_and_http2(kube):
    assert from_caller(kube, "grpc://echo:7070")["StatusCode"] == ["200"]
    answer = from_caller(kube, "h2c://echo/")
    assert answer["StatusCode"] == ["200"] and mesh.caller(answer) == IDENTITY, answer


def test_headless_service_and_direct_calls_of_pods(kube):
    space = kube.within(SPACE)
    answer = from_caller(kube, "http://headless:8080/")
    assert answer["ServiceVersion"] == ["v1"], answer
    pod = space.pods("app=echo,version=v2")[0]
    answer = from_caller(kube, f"http://{pod['status']['podIP']}:8080/")
    assert answer["Hostname"] == [pod["metadata"]["name"]], answer


def test_pods_without_a_sidecar_ask_and_are_asked(kube):
    space = kube.within(SPACE)
    answer = from_caller(kube, "http://outside/")
    assert answer["StatusCode"] == ["200"], answer
    answer = space.ask(space.pod("app=outside"), "http://echo/")
    assert answer["StatusCode"] == ["200"] and mesh.caller(answer) is None, answer


def test_a_made_up_identity_is_taken_away(kube):
    space = kube.within(SPACE)
    lie = "x-forwarded-client-cert:URI=spiffe://cluster.local/ns/kube-system/sa/admin"
    answer = space.ask(space.pod("app=outside"), "http://echo/", "-H", lie)
    assert mesh.caller(answer) is None, answer
    assert mesh.caller(from_caller(kube, "http://echo/", "-H", lie)) == IDENTITY


def test_tcp_and_a_server_that_speaks_first(kube):
    """From outside of the mesh through the sidecar, and by the load within it."""
    pod = kube.within(SPACE).pods("app=echo")[0]
    address = pod["status"]["podIP"]
    with socket.create_connection((address, 9090), timeout=10) as connection:
        connection.sendall(b"hello")
        assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
    with socket.create_connection((address, 9091), timeout=10) as connection:
        assert connection.recv(4, socket.MSG_WAITALL) == b"220 "


def test_tcp_within_the_mesh(kube):
    space = kube.within(SPACE)
    caller = space.pod("app=caller")
    said = space.exec(caller, "/app", "talk", "echo:9090", "hello", container="app")
    assert said == "hello", said
    assert space.exec(caller, "/app", "talk", "echo:9091", container="app").startswith("220 ")


def test_what_is_not_in_the_mesh_is_reached_and_counted(kube):
    """kubelet stands for the outside: no Service has it."""
    space = kube.within(SPACE)
    pod = space.pods("app=caller")[0]
    before = mesh.metric(pod, "weir_router_egress_total")
    # It speaks TLS only, to HTTP it answers 400.
    answer = space.ask(pod["metadata"]["name"], "http://10.244.0.1:10250/")
    assert answer["StatusCode"] == ["400"], answer
    assert mesh.metric(pod, "weir_router_egress_total") > before


def test_skipped_ports_go_past_the_sidecar(kube):
    space = kube.within(SPACE)
    deployment, _ = app("skipping")
    deployment["spec"]["template"]["metadata"]["annotations"] = {"weir.dev/skip-outbound-ports": "80"}
    space.apply(deployment)
    space.rolled_out("skipping-v1")
    answer = space.ask(space.pod("app=skipping"), "http://echo/")
    assert answer["StatusCode"] == ["200"] and mesh.caller(answer) is None, answer


def test_without_a_split_all_pods_are_asked(kube):
    kube.wait(lambda: set(versions(kube, count=20)) == {"v1", "v2"}, "answers of both versions")


def test_a_split_is_exact(kube):
    space = kube.within(SPACE)
    space.apply(mesh.split("echo", v1=90, v2=10))
    kube.wait(lambda: versions(kube) == {"v1": 90, "v2": 10}, "90 and 10 of 100")
    space.apply(mesh.split("echo", v1=0, v2=100))
    kube.wait(lambda: versions(kube) == {"v2": 100}, "all to v2")


def test_weir_shift_and_kubectl_agree(kube):
    space = kube.within(SPACE)
    mesh.weir(kube, "shift", f"echo.{SPACE}", "v1=75", "v2=25", "--wait")
    # `--wait` means that every router has it.
    assert versions(kube) == {"v1": 75, "v2": 25}
    spec = space.get("trafficsplit", "echo")["spec"]
    assert {v["name"]: v["weight"] for v in spec["versions"]} == {"v1": 75, "v2": 25}, spec
    fields = space.get("trafficsplit", "echo")
    managers = json.loads(
        space.kubectl("get", "trafficsplit", "echo", "--show-managed-fields", "--output=json")
    )["metadata"]["managedFields"]
    assert "weir" in {m["manager"] for m in managers}, managers
    space.delete("trafficsplit", fields["metadata"]["name"])
    kube.wait(lambda: 30 < versions(kube)["v1"] < 70, "plain Kubernetes behaviour again")


def test_http_route_of_a_service(kube):
    space = kube.within(SPACE)
    parent = {"group": "", "kind": "Service", "name": "echo", "port": 80}
    space.apply(
        app("canary", "v3")[0],
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "canary"},
            "spec": {
                "selector": {"app": "canary"},
                "ports": [{"port": 80, "targetPort": 8080, "appProtocol": "http"}],
            },
        },
        mesh.http_route(
            "to-canary",
            parent,
            [
                {
                    "matches": [{"headers": [{"name": "x-canary", "value": "yes"}]}],
                    "backendRefs": [{"name": "canary", "port": 80}],
                },
                {"backendRefs": [{"name": "echo", "port": 80}]},
            ],
        ),
    )
    space.rolled_out("canary-v3")
    space.wait(lambda: mesh.accepted(space.get("httproute", "to-canary")), "the route's status")
    kube.wait(lambda: versions(kube, "http://echo/", 4, "-H", "x-canary:yes") == {"v3": 4}, "the canary")
    assert "v3" not in versions(kube, count=20)
    space.delete("httproute", "to-canary")


def test_a_route_to_nowhere_says_so(kube):
    space = kube.within(SPACE)
    parent = {"group": "", "kind": "Service", "name": "echo", "port": 80}
    space.apply(mesh.http_route("nowhere", parent, [{"backendRefs": [{"name": "missing", "port": 80}]}]))

    def told():
        for status in space.get("httproute", "nowhere")["status"]["parents"]:
            for condition in status["conditions"]:
                if condition["type"] == "ResolvedRefs":
                    return condition["status"] == "False" and condition["reason"] == "BackendNotFound"
        return False

    space.wait(told, "ResolvedRefs=False, BackendNotFound")
    space.delete("httproute", "nowhere")


def test_authorization_by_identity(kube):
    space = kube.within(SPACE)
    space.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other"}},
        app("stranger", serviceAccountName="other")[0],
        {
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "only-default"},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "echo"}],
                "action": "Allow",
                "rules": [{"from": {"identities": [IDENTITY]}}],
            },
        },
    )
    space.rolled_out("stranger-v1")
    stranger = space.pod("app=stranger")
    space.wait(lambda: space.ask(stranger, "http://echo/")["StatusCode"] == ["403"], "403 for the stranger")
    assert from_caller(kube, "http://echo/")["StatusCode"] == ["200"]
    space.delete("authorizationpolicy", "only-default")
    space.wait(lambda: space.ask(stranger, "http://echo/")["StatusCode"] == ["200"], "200 again")


def test_terminating_pods_are_left_in_time(kube):
    space = kube.within(SPACE)
    load = space.load("leaving", "http://echo/", "--rate=50", "--count=100000", "--method=POST")
    for pod in space.pods("app=echo"):
        space.delete("pod", pod["metadata"]["name"], wait=False)
        space.rolled_out("echo-v1", "echo-v2")
    report = load.stop()
    assert report["failed"] == 0, report


def test_traffic_goes_on_without_control_plane_and_api_server(kube):
    space = kube.within(SPACE)
    system = kube.within(mesh.NAMESPACE)
    load = space.load("outage", "http://echo/", "--rate=50", "--count=100000", "--method=POST")
    replicas = system.get("deployment", "weir-control-plane")["spec"]["replicas"]
    system.kubectl("scale", "deployment/weir-control-plane", "--replicas=0")
    try:
        system.wait(lambda: not system.pods("app.kubernetes.io/name=weir-control-plane"), "no control plane")
        address = space.pods("app=caller")[0]["status"]["podIP"]
        kube.cluster.stop_component("kube-apiserver")
        try:
            for _ in range(20):
                status, body = http(f"http://{address}:8080/call/echo:80/")
                assert status == 200, body
        finally:
            kube.cluster.start_component("kube-apiserver")
            kube.wait(lambda: kube.kubectl("get", "--raw", "/readyz") == "ok", "the API server is back")
    finally:
        system.kubectl("scale", "deployment/weir-control-plane", f"--replicas={replicas}")
    mesh.ready(kube)
    report = load.stop()
    assert report["failed"] == 0, report
    # And changes arrive again.
    mesh.weir(kube, "shift", f"echo.{SPACE}", "v1=100", "v2=0", "--wait")
    assert versions(kube, count=20) == {"v1": 20}
    space.delete("trafficsplit", "echo")
