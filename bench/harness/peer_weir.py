"""Weir: a control plane beside, and routers with the options that they have by
default."""

import base64
import http.client
import json
import secrets
import subprocess

from . import procs, template
from .peer import Peer, Running, local, made

PROTOCOL = {"http1": "PROTOCOL_HTTP1", "grpc": "PROTOCOL_GRPC"}
SERVICES = ("bench", "client", "gateway", "products")


class Plane:
    """A control plane, on the core that proxies are not on."""

    def __init__(self, tools, directory):
        self.directory = directory
        self.tools = tools
        self.tokens = {name: secrets.token_hex(16) for name in SERVICES}
        for name, token in self.tokens.items():
            (directory / f"{name}.token").write_text(token)
        (directory / "join.json").write_text(json.dumps(self.tokens))
        ready = directory / "plane.ready"
        data = directory / "plane"
        command = [tools["weir"], "control-plane", "--data", data, "--ready-file", ready]
        command += ["--join-tokens", directory / "join.json", "--log-level", "warn"]
        self.process = procs.Process("weir-control", command, procs.LOAD_CORE, directory)
        self.process.wait_until(ready.is_file, "ready")
        self.addresses = json.loads(ready.read_text())
        self.bundle = data / "ca" / "bundle.pem"
        self.token = (data / "token").read_text().strip()

    def call(self, method, path, body=None):
        """A call of the API, as JSON."""
        connection = http.client.HTTPConnection(self.addresses["api"], timeout=60)
        try:
            headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        finally:
            connection.close()
        if response.status != 200:
            raise procs.Failed(f"control plane: {method} {path}: {response.status} {text[:500]}")
        return json.loads(text)

    def apply_file(self, path):
        """Applies a mesh file, by `weir apply`."""
        control = ["--control", f"http://{self.addresses['api']}", "--token", self.token]
        command = [self.tools["weir"], "apply", "--file", path, *control]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            raise procs.Failed(f"weir apply: {done.stderr.strip()}")

    def wait_instances(self, count):
        """Until so many instances are well."""

        def well():
            instances = self.call("GET", "/v1/instances").get("instances", [])
            return sum(bool(i.get("healthy")) for i in instances) >= count

        self.process.wait_until(well, f"knowing {count} healthy instances")

    def wait_applied(self, routers):
        """Until so many routers have applied the newest snapshot."""

        def applied():
            known = self.call("GET", "/v1/routers").get("routers", [])
            done = [r for r in known if r.get("live") and int(r.get("lag", 0)) == 0]
            return len(done) >= routers

        self.process.wait_until(applied, f"applied by {routers} routers")


class Weir(Peer):
    """`weir-router` with one worker, its default."""

    name = "weir"
    kinds = (
        ("hop", "http1"), ("hop", "grpc"), ("pair", "http1"), ("pair", "grpc"), ("gateway", "grpc"),
    )
    needs = ("weir-router", "weir")

    def router(self, plane, service, version, app, protocol, directory, listen):
        """A router's command. Everything that is not said is the default."""
        name = f"{service}-{version}"
        command = [self.tools["weir-router"], "--service", service, "--version-name", version]
        command += ["--control", plane.addresses["mesh"], "--trust-bundle", plane.bundle]
        command += ["--join-token-file", plane.directory / f"{service}.token"]
        command += ["--instance-id", name]
        if app:
            command += ["--app", app, "--app-protocol", protocol]
        else:
            command += ["--role", "gateway"]
        command += ["--state-dir", made(directory, f"state-{name}"), "--log-level", "warn"]
        for flag, address in listen.items():
            command += [f"--{flag}", address]
        return command

    def start_router(self, plane, service, version, app, protocol, directory):
        """Runs one: (process, where it listens by flag)."""
        flags = ("inbound-listen", "outbound-listen") if app else ("listen",)
        listen = {flag: local(procs.free_port()) for flag in flags}
        command = self.router(plane, service, version, app, protocol, directory, listen)
        name = f"weir-{service}-{version}"
        process = procs.Process(name, command, procs.PROXY_CORE, directory)
        process.wait_listening(listen[flags[-1]])
        return process, listen

    def start(self, site, directory):
        plane = Plane(self.tools, directory)
        kinds = {"hop": self.start_hop, "pair": self.start_pair, "gateway": self.start_gateway}
        running = kinds[site.kind](plane, site, directory)
        running.others.append(plane.process)
        return running

    def start_hop(self, plane, site, directory):
        """The client's router, and an upstream that has none."""
        upstream = site.upstreams["v1"]
        values = {"PROTOCOL": PROTOCOL[site.protocol], "V1": upstream}
        values["ROUTES"] = json.dumps(routes(site.routes))
        plane.call("POST", "/v1/apply", json.loads(template.fragment("weir/hop.json", values)))
        client, listen = self.start_router(
            plane, "client", "v1", upstream, site.protocol, directory
        )
        plane.wait_instances(2)
        plane.wait_applied(1)
        return WeirRunning(plane, listen["outbound-listen"], [client])

    def start_pair(self, plane, site, directory):
        """The routers of v1 and v2, and the client's."""
        values = {"PROTOCOL": PROTOCOL[site.protocol]}
        values |= {"W1": site.weights[0], "W2": site.weights[1]}
        plane.call("POST", "/v1/apply", json.loads(template.fragment("weir/pair.json", values)))
        proxies, inbound = [], {}
        for version, upstream in site.upstreams.items():
            process, listen = self.start_router(
                plane, "bench", version, upstream, site.protocol, directory
            )
            proxies.append(process)
            inbound[version] = listen["inbound-listen"]
        app = site.upstreams["v1"]
        client, listen = self.start_router(plane, "client", "v1", app, site.protocol, directory)
        plane.wait_instances(len(proxies) + 1)
        plane.wait_applied(len(proxies) + 1)
        running = WeirRunning(plane, listen["outbound-listen"], [client, *proxies])
        running.inbound = inbound["v1"]
        state = directory / "state-client-v1"
        running.client = {
            "cert": state / "svid.pem",
            "key": state / "svid.pem",
            "ca": state / "bundle.pem",
        }
        return running

    def start_gateway(self, plane, site, directory):
        """The gateway, and the router beside the catalogue."""
        plane.apply_file(template.PEERS / "weir" / "gateway.yaml")
        app = site.upstreams["v1"]
        router, _ = self.start_router(plane, "products", "v1", app, "grpc", directory)
        gateway, listen = self.start_router(plane, "gateway", "v1", None, "", directory)
        plane.wait_instances(1)
        plane.wait_applied(2)
        return WeirRunning(plane, listen["listen"], [gateway, router])

    def first_byte(self, site, directory):
        """A restart: certificate and snapshot are on disk, as the state
        directory of a sidecar keeps them."""
        plane = Plane(self.tools, directory)
        running = self.start_hop(plane, site, directory)
        running.stop()
        listen = {"inbound-listen": local(procs.free_port()), "outbound-listen": running.target}
        command = self.router(
            plane, "client", "v1", site.upstreams["v1"], site.protocol, directory, listen
        )
        return command, running.target, plane.process


class WeirRunning(Running):
    """Routers, told of changes by their control plane."""

    def __init__(self, plane, target, proxies):
        super().__init__(target, proxies)
        self.plane = plane

    def shift(self, weights):
        body = {"weights": {"v1": weights[0], "v2": weights[1]}}
        self.plane.call("POST", "/v1/services/bench/shift", body)

    def rotate(self):
        self.plane.call("POST", "/v1/certificates/rotate", {})


def descriptors(tools, directory):
    """Writes the catalogue's descriptor set, as a control plane has it."""
    plane = Plane(tools, directory)
    try:
        plane.apply_file(template.PEERS / "weir" / "gateway.yaml")
        service = plane.call("GET", "/v1/services/products")
    finally:
        plane.process.stop()
    path = directory / "products.binpb"
    path.write_bytes(base64.b64decode(service["descriptorSet"]))
    return path


def routes(count):
    """Routes of calls to `bench`, each with one prefix; none for one route."""
    if count == 1:
        return []
    return [
        {
            "name": f"r{i}",
            "kind": "HTTP_ROUTE",
            "parentRefs": [{"kind": "Service", "name": "bench"}],
            "rules": [
                {
                    "matches": [{"pathType": "PATH_PREFIX", "path": f"/r{i}"}],
                    "backendRefs": [{"service": "bench", "weight": 1}],
                }
            ],
        }
        for i in range(count)
    ]
