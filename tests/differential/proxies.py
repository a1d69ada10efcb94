"""Weir, nginx, HAProxy and Envoy with the same five routes.

`/exact` exactly, `/prefix` and `/prefix/long` by segment, `/header` when `x-env`
is `canary`, `/method` when the method is POST; `/answer` by segment; all for the
host `shop.example`. Each proxy tells the upstream by `x-route` which it took.
Everything else is refused with 404.
"""

import json
import shutil
import socket
import subprocess
import time

ENVOY_ROUTES = [
    ('path: "/exact"', "", "exact"),
    ('path_separated_prefix: "/prefix/long"', "", "long"),
    ('path_separated_prefix: "/prefix"', "", "prefix"),
    ('path: "/header"', 'headers: [{name: x-env, string_match: {exact: canary}}]', "header"),
    ('path: "/method"', 'headers: [{name: ":method", string_match: {exact: POST}}]', "method"),
    ('path_separated_prefix: "/answer"', "", "answer"),
]

WEIR_MATCHES = [
    ({"path": {"type": "Exact", "value": "/exact"}}, "exact"),
    ({"path": {"type": "PathPrefix", "value": "/prefix/long"}}, "long"),
    ({"path": {"type": "PathPrefix", "value": "/prefix"}}, "prefix"),
    ({"path": {"type": "Exact", "value": "/header"},
      "headers": [{"name": "x-env", "value": "canary"}]}, "header"),
    ({"path": {"type": "Exact", "value": "/method"}, "method": "POST"}, "method"),
    ({"path": {"type": "PathPrefix", "value": "/answer"}}, "answer"),
]


class Proxy:
    """A proxy that runs."""

    def __init__(self, name, backend, directory, weir):
        self.name = name
        self.backend = backend
        self.directory = directory / name
        self.directory.mkdir()
        self.port = free_port()
        command = {"weir": self.weir, "nginx": self.nginx, "haproxy": self.haproxy,
                   "envoy": self.envoy}[name](weir)
        log = (self.directory / "log").open("wb")
        self.child = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
        self.wait()

    def wait(self):
        """Until it answers a request as it should."""
        deadline = time.monotonic() + 60
        request = b"GET /exact HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n"
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                    connection.sendall(request)
                    if b" 200 " in connection.recv(100):
                        return
            except OSError:
                pass
            time.sleep(0.1)
        log = (self.directory / "log").read_text(errors="replace")[-3000:]
        raise SystemExit(f"{self.name} does not answer on port {self.port}:\n{log}")

    def stop(self):
        """Ends it."""
        self.child.terminate()
        try:
            self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.child.kill()

    def weir(self, weir):
        rules = [
            {
                "matches": [match],
                "filters": [{
                    "type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"set": [{"name": "x-route", "value": route}]},
                }],
                "backendRefs": [{"name": "shop"}],
            }
            for match, route in WEIR_MATCHES
        ]
        mesh = {
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "Mesh",
            "gateway": {"port": self.port},
            "services": [{
                "name": "shop",
                "protocol": "http1",
                "versions": [{"name": "v1", "addresses": [f"127.0.0.1:{self.backend.port}"]}],
            }],
            "routes": [{
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {"name": "shop"},
                "spec": {
                    "parentRefs": [{"name": "gateway"}],
                    "hostnames": ["shop.example"],
                    "rules": rules,
                },
            }],
        }
        config = self.directory / "mesh.yaml"
        config.write_text(json.dumps(mesh, indent=1))
        return [weir, "up", "--file", config, "--data", self.directory / "data", "--no-access-log"]

    def nginx(self, _):
        proxy = f"proxy_pass http://127.0.0.1:{self.backend.port};"

        def location(where, route, extra=""):
            return f"location {where} {{ {extra} proxy_set_header x-route {route}; {shared} {proxy} }}"

        # proxy_set_header of a location replaces those of the server.
        shared = "proxy_http_version 1.1; proxy_set_header connection ''; proxy_set_header host $http_host;"
        config = self.directory / "nginx.conf"
        config.write_text(f"""
daemon off; worker_processes 1; pid {self.directory}/pid; error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {self.directory}/body;
  proxy_temp_path {self.directory}/proxy; fastcgi_temp_path {self.directory}/fastcgi;
  uwsgi_temp_path {self.directory}/uwsgi; scgi_temp_path {self.directory}/scgi;
  client_max_body_size 0; large_client_header_buffers 4 64k;
  server {{ listen 127.0.0.1:{self.port} default_server; return 404; }}
  server {{
    listen 127.0.0.1:{self.port}; server_name shop.example;
    {location("= /exact", "exact")}
    {location("= /prefix", "prefix")} {location("/prefix/", "prefix")}
    {location("= /prefix/long", "long")} {location("/prefix/long/", "long")}
    {location("= /header", "header", "if ($http_x_env != canary) { return 404; }")}
    {location("= /method", "method", "if ($request_method != POST) { return 404; }")}
    {location("/answer/", "answer")}
    location / {{ return 404; }}
  }}
}}
""")
        return [shutil.which("nginx"), "-e", self.directory / "error.log", "-c", config]

    def haproxy(self, _):
        config = self.directory / "haproxy.cfg"
        config.write_text(f"""
global
  maxconn 500
  tune.bufsize 65536
defaults
  mode http
  timeout client 10s
  timeout server 10s
  timeout connect 2s
frontend front
  bind 127.0.0.1:{self.port}
  http-request return status 404 unless {{ req.hdr(host),host_only,lower -m str shop.example }}
  acl long path -m str /prefix/long
  acl long path -m beg /prefix/long/
  acl prefix path -m str /prefix
  acl prefix path -m beg /prefix/
  acl header path -m str /header
  acl canary req.hdr(x-env) -m str canary
  acl method path -m str /method
  acl exact path -m str /exact
  acl answer path -m beg /answer/
  http-request set-header x-route long if long
  http-request set-header x-route prefix if prefix !long
  http-request set-header x-route header if header canary
  http-request set-header x-route method if method {{ method POST }}
  http-request set-header x-route exact if exact
  http-request set-header x-route answer if answer
  http-request return status 404 unless {{ req.hdr(x-route) -m found }}
  default_backend back
backend back
  server one 127.0.0.1:{self.backend.port}
""")
        return [shutil.which("haproxy"), "-db", "-f", config]

    def envoy(self, _):
        routes = "\n".join(
            f"""                        - match: {{{match}{', ' + extra if extra else ''}}}
                          route: {{cluster: back, timeout: 10s}}
                          request_headers_to_add:
                            - {{header: {{key: x-route, value: {route}}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}"""
            for match, extra, route in ENVOY_ROUTES
        )
        config = self.directory / "envoy.yaml"
        config.write_text(f"""
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {free_port()}}}}}}}
static_resources:
  listeners:
    - name: front
      address: {{socket_address: {{address: 127.0.0.1, port_value: {self.port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: front
                codec_type: HTTP1
                normalize_path: true
                merge_slashes: true
                path_with_escaped_slashes_action: REJECT_REQUEST
                strip_trailing_host_dot: true
                strip_any_host_port: false
                route_config:
                  virtual_hosts:
                    - name: shop
                      domains: ["shop.example", "shop.example:*"]
                      routes:
{routes}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
    - name: back
      type: STATIC
      connect_timeout: 2s
      load_assignment:
        cluster_name: back
        endpoints:
          - lb_endpoints:
              - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {self.backend.port}}}}}}}
""")
        return [
            shutil.which("envoy"), "-c", config, "--concurrency", "1", "--log-level", "warning",
            "--disable-hot-restart",
        ]


def free_port():
    """One that was free a moment ago: none of the four can take port 0 and tell it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
