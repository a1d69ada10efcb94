"""Envoy: as one hop, as three sidecars, as a gateway for JSON."""

import os
import subprocess

from . import procs, template
from .peer import Peer, Running, local, made, port_of

# Weir's windows (router/src/upstream/dial.rs), for every HTTP/2 connection.
HTTP2 = (
    "{initial_stream_window_size: 1048576, initial_connection_window_size: 4194304,"
    " max_concurrent_streams: 1024}"
)
APP_HTTP = {
    "http1": "{http_protocol_options: {}}",
    "grpc": f"{{http2_protocol_options: {HTTP2}}}",
}
# How many certificates of each sidecar are made, to rotate through.
CERTIFICATES = 4


class Envoy(Peer):
    """Envoy with one worker thread."""

    name = "envoy"
    kinds = (
        ("hop", "http1"), ("hop", "grpc"), ("pair", "http1"), ("pair", "grpc"), ("gateway", "grpc"),
    )
    needs = ("envoy", "openssl")

    def command(self, config):
        """Runs a configuration. `--concurrency 1` is one worker beside the main
        thread; without hot restart there is no shared memory to name."""
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
        return [self.tools["envoy"], "-c", config, *flags]

    def prepare(self, site, directory):
        """Writes the configuration of one hop: (command, IP:PORT)."""
        port = procs.free_port()
        values = {
            "PORT": port,
            "ADMIN": procs.free_port(),
            "UPSTREAM_PORT": port_of(site.upstreams["v1"]),
            "HTTP2": HTTP2,
            "APP_HTTP": APP_HTTP[site.protocol],
            "ROUTES": hop_routes(site.routes),
        }
        config = template.render("envoy/hop.yaml", values, directory / "hop.yaml")
        return self.command(config), local(port)

    def first_byte(self, site, directory):
        return *self.prepare(site, directory), None

    def start(self, site, directory):
        if site.kind != "hop":
            return self.start_pair(site, directory)
        command, target = self.prepare(site, directory)
        process = procs.Process("envoy", command, procs.PROXY_CORE, directory)
        process.wait_listening(target)
        return Running(target, [process])

    def start_pair(self, site, directory):
        """The sidecars of each version, then the client's, or the gateway."""
        certs = made(directory, "certs")
        make_certificates(self.tools["openssl"], certs)
        for name in ("bench", "client"):
            own_certificate(directory, certs, name, 0)
        common = {"DIR": directory, "CERTS": certs, "HTTP2": HTTP2}
        proxies, clusters, inbound = [], [], []
        for version, upstream in site.upstreams.items():
            process, address = self.start_server(site, version, upstream, common)
            proxies.append(process)
            inbound.append(address)
            values = {**common, "VERSION": version, "VERSION_PORT": port_of(address)}
            clusters.append(template.fragment("envoy/client-cluster.yaml", values))
        for process, address in zip(proxies, inbound):
            process.wait_listening(address)
        write_weights(directory, site.weights if len(inbound) > 1 else (100, 0))
        gateway = site.kind == "gateway"
        filters = ""
        if gateway:
            values = {"DESCRIPTORS": site.descriptors}
            filters = template.fragment("envoy/transcoder.yaml", values)
        port = procs.free_port()
        values = {**common, "PORT": port, "ADMIN": procs.free_port(), "FILTERS": filters}
        values |= {"CLUSTERS": "\n".join(clusters), "EDGE": str(gateway).lower()}
        config = template.render("envoy/client.yaml", values, directory / "client.yaml")
        client = procs.Process("envoy-client", self.command(config), procs.PROXY_CORE, directory)
        client.wait_listening(local(port))
        running = EnvoyPair(local(port), [client, *proxies], directory, certs)
        running.inbound = inbound[0]
        running.client = {
            "cert": certs / "client-0.pem",
            "key": certs / "client-0.key",
            "ca": certs / "root.pem",
        }
        return running

    def start_server(self, site, version, upstream, common):
        """The sidecar of one version: (process, where mutual TLS comes in)."""
        directory, port = common["DIR"], procs.free_port()
        values = {**common, "PORT": port, "ADMIN": procs.free_port()}
        values |= {"UPSTREAM_PORT": port_of(upstream), "APP_HTTP": APP_HTTP[site.protocol]}
        config = template.render("envoy/server.yaml", values, directory / f"server-{version}.yaml")
        name = f"envoy-{version}"
        process = procs.Process(name, self.command(config), procs.PROXY_CORE, directory)
        return process, local(port)


class EnvoyPair(Running):
    """Three sidecars, told of changes by files that they watch."""

    def __init__(self, target, proxies, directory, certs):
        super().__init__(target, proxies)
        self.directory = directory
        self.certs = certs
        self.generation = 0

    def shift(self, weights):
        write_weights(self.directory, weights)

    def rotate(self):
        self.generation += 1
        for name in ("bench", "client"):
            own_certificate(self.directory, self.certs, name, self.generation % CERTIFICATES)


def hop_routes(count):
    """One route; or a tree of prefixes, for a list would be tried in turn."""
    plain = "route: {cluster: bench, timeout: 0s}"
    if count == 1:
        return f"routes:\n  - match: {{prefix: /}}\n    {plain}"
    action = (
        '{action: {name: route, typed_config: {"@type": '
        "type.googleapis.com/envoy.config.route.v3.Route, match: {prefix: /}, " + plain + "}}}"
    )
    lines = [
        "matcher:",
        "  matcher_tree:",
        "    input:",
        "      name: path",
        "      typed_config:",
        '        "@type": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput',
        '        header_name: ":path"',
        "    prefix_match_map:",
        "      map:",
    ]
    lines += [f"        /r{i}/: {action}" for i in range(count)]
    return "\n".join(lines)


def replace(path, write):
    """Writes a file beside and moves it over: Envoy watches for moves."""
    beside = path.with_suffix(".new")
    write(beside)
    os.replace(beside, path)


def write_weights(directory, weights):
    """The split of the client's sidecar."""
    values = {"V1": weights[0], "V2": weights[1]}
    replace(directory / "routes.yaml", lambda to: template.render("envoy/routes.yaml", values, to))


def own_certificate(directory, certs, name, generation):
    """Which certificate a sidecar shows."""
    values = {
        "CERT": certs / f"{name}-{generation}.pem",
        "KEY": certs / f"{name}-{generation}.key",
    }
    path = directory / f"own-{name}.yaml"
    replace(path, lambda to: template.render("envoy/certificate.yaml", values, to))


def make_certificates(openssl, certs):
    """A root and SPIFFE certificates as Weir's authority makes them: P-256."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]

    def run(*arguments):
        command = [str(part) for part in (openssl, *arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise procs.Failed(f"openssl: {done.stderr.strip()}")

    root = ["-x509", "-days", "2", "-subj", "/CN=bench root"]
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    run("req", *curve, *root, *usage, "-keyout", certs / "root.key", "-out", certs / "root.pem")
    for name in ("client", "bench"):
        extensions = certs / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName=critical,URI:spiffe://weir.local/ns/default/sa/{name}\n"
            "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        for number in range(CERTIFICATES):
            own = certs / f"{name}-{number}"
            request = f"{own}.csr"
            run("req", *curve, "-subj", "/O=bench", "-keyout", f"{own}.key", "-out", request)
            sign = ["-CA", certs / "root.pem", "-CAkey", certs / "root.key", "-days", "1"]
            run("x509", "-req", "-in", request, *sign, "-extfile", extensions, "-out", f"{own}.pem")
