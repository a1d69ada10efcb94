"""From outside into the mesh."""

import base64
import pathlib
import socket
import ssl
import tempfile

from harness import cluster, mesh
from harness.kube import app, http

SPACE = "entry"


def setup(kube):
    mesh.install(kube)
    space = kube.make(SPACE, mesh.INJECTED)
    space.apply(*app("echo", "v1"), *app("echo", "v2"))
    space.apply(mesh.gateway("public"))
    parent = {"name": "public"}
    space.apply(
        mesh.http_route("echo", parent, [{"backendRefs": [{"name": "echo", "port": 80}]}], ["echo.example"])
    )
    space.rolled_out("echo-v1", "echo-v2")


def teardown(kube):
    kube.delete("namespace", SPACE)


def test_class_gateway_and_route_are_accepted(kube):
    space = kube.within(SPACE)
    kube.condition("gatewayclass", "weir", "Accepted")
    space.condition("gateway", "public", "Accepted")
    space.condition("gateway", "public", "Programmed")
    space.wait(lambda: mesh.accepted(space.get("httproute", "echo")), "the route's status")
    listeners = space.get("gateway", "public")["status"]["listeners"]
    assert listeners[0]["attachedRoutes"] == 1, listeners


def test_requests_reach_the_service_by_host_name(kube):
    url = mesh.gateway_url(kube, "/hello")
    kube.wait(lambda: http(url, Host="echo.example")[0] == 200, "200 through the gateway")
    assert http(url, Host="other.example")[0] == 404


def test_a_split_counts_at_the_gateway_too(kube):
    space = kube.within(SPACE)
    mesh.weir(kube, "shift", f"echo.{SPACE}", "v1=0", "v2=100", "--wait")
    url = mesh.gateway_url(kube)
    for _ in range(20):
        status, body = http(url, Host="echo.example")
        assert status == 200 and '"version": "v2"' in body, body
    space.delete("trafficsplit", "echo")


def test_tls_from_a_secret(kube):
    space = kube.within(SPACE)
    with tempfile.TemporaryDirectory() as work:
        cluster.run(
            *("openssl", "req", "-x509", "-nodes", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-days", "1", "-subj", "/CN=echo.example", "-addext", "subjectAltName=DNS:echo.example"),
            *("-keyout", f"{work}/tls.key", "-out", f"{work}/tls.crt"),
        )
        certificate, key = pathlib.Path(work, "tls.crt").read_bytes(), pathlib.Path(work, "tls.key").read_bytes()
    space.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "echo-example"},
            "data": {
                "tls.crt": base64.b64encode(certificate).decode(),
                "tls.key": base64.b64encode(key).decode(),
            },
        }
    )
    with_tls = mesh.gateway("public")
    with_tls["spec"]["listeners"].append(
        {
            "name": "https",
            "port": 443,
            "protocol": "HTTPS",
            "hostname": "echo.example",
            "tls": {"mode": "Terminate", "certificateRefs": [{"name": "echo-example"}]},
        }
    )
    space.apply(with_tls)
    address = kube.within(mesh.NAMESPACE).address("weir-gateway")
    trust = ssl.create_default_context(cadata=certificate.decode())

    def answered():
        with socket.create_connection((address, 443), timeout=10) as plain:
            with trust.wrap_socket(plain, server_hostname="echo.example") as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nhost: echo.example\r\nconnection: close\r\n\r\n")
                return connection.recv(12).endswith(b" 200")

    kube.wait(answered, "200 over TLS with the Secret's certificate")


def test_a_route_of_another_namespace_needs_leave(kube):
    space = kube.within(SPACE)
    space.apply(mesh.gateway("private", port=80, namespaces="Same"))
    with kube.fresh("entry-other", mesh.INJECTED) as other:
        parent = {"name": "private", "namespace": SPACE}
        other.apply(mesh.http_route("intruder", parent, [{"backendRefs": [{"name": "echo", "port": 80}]}]))

        def refused():
            for status in other.get("httproute", "intruder")["status"]["parents"]:
                for condition in status["conditions"]:
                    if condition["type"] == "Accepted":
                        return condition["status"] == "False" and condition["reason"] == "NotAllowedByListeners"
            return False

        other.wait(refused, "Accepted=False, NotAllowedByListeners")
    space.delete("gateway", "private")
