"""nginx, HAProxy, and the plain relay that bodies are compared with."""

from . import procs, template
from .peer import Peer, Running, Simple, local

HTTP1 = ("hop", "http1")
GRPC = ("hop", "grpc")


class Nginx(Simple):
    """nginx: one master and one worker."""

    name = "nginx"
    kinds = (HTTP1, GRPC)
    needs = ("nginx",)

    def prepare(self, site, directory):
        port = procs.free_port()
        values = {
            "DIR": directory,
            "PORT": port,
            "ADMIN": procs.free_port(),
            "UPSTREAM": site.upstreams["v1"],
        }
        if site.protocol == "http1":
            values["LOCATIONS"] = nginx_locations(site.routes)
            config = template.render("nginx/http1.conf", values, directory / "nginx.conf")
        else:
            config = template.render("nginx/grpc.conf", values, directory / "nginx.conf")
        command = [self.tools["nginx"], "-e", directory / "error.log", "-c", config]
        return command, local(port)

    def start(self, site, directory):
        running = super().start(site, directory)
        master = running.proxies[0]
        # The master listens before its worker is there.
        master.wait_until(lambda: len(master.pids()) > 1, "running its worker")
        return running


def nginx_locations(routes):
    """A tree of prefixes."""
    if routes == 1:
        return "location / { proxy_pass http://bench; }"
    each = (f"location /r{i}/ {{ proxy_pass http://bench; }}" for i in range(routes))
    return "\n".join(each)


class Haproxy(Simple):
    """HAProxy: one process with one thread."""

    name = "haproxy"
    kinds = (HTTP1, GRPC)
    needs = ("haproxy",)

    def prepare(self, site, directory):
        port = procs.free_port()
        if site.routes == 1:
            routing = "default_backend bench"
        else:
            # A map of prefixes is a tree; a list of ACLs would be tried in turn.
            routes = directory / "routes.map"
            routes.write_text("".join(f"/r{i}/ bench\n" for i in range(site.routes)))
            routing = f"use_backend %[path,map_beg({routes})]"
        values = {
            "DIR": directory,
            "PORT": port,
            "UPSTREAM": site.upstreams["v1"],
            "PROTO": "" if site.protocol == "http1" else "proto h2",
            "ROUTING": routing,
        }
        config = template.render("haproxy/hop.cfg", values, directory / "haproxy.cfg")
        return [self.tools["haproxy"], "-db", "-f", config], local(port)


class Relay(Peer):
    """weir-bench's TCP relay: what copying bytes in user space costs at least.
    As a pair it is two of them, one behind the other."""

    name = "relay"
    kinds = (HTTP1, ("pair", "http1"))
    needs = ("weir-bench",)

    def start(self, site, directory):
        to = site.upstreams["v1"]
        relays = []
        for name in ("near",) if site.kind == "hop" else ("near", "far"):
            listen = local(procs.free_port())
            command = [self.tools["weir-bench"], "relay", "--listen", listen, "--to", to]
            relay = procs.Process(f"relay-{name}", command, procs.PROXY_CORE, directory)
            relay.wait_listening(listen)
            relays.append(relay)
            to = listen
        return Running(to, relays)


class Direct(Peer):
    """Nothing: the load goes to the upstream itself."""

    name = "direct"
    kinds = (HTTP1, GRPC, ("pair", "http1"), ("pair", "grpc"))

    def start(self, site, directory):
        return Running(site.upstreams["v1"], [])
