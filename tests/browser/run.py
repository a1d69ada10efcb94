"""Opens page.html in headless Chromium, from an origin that is not the gateway's,
and checks what the page could do there.

    python3 tests/browser/run.py --gateway http://127.0.0.1:8080
"""

import argparse
import http.server
import json
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading

PAGE = pathlib.Path(__file__).with_name("page.html").read_bytes()
DEADLINE = 90  # seconds, for a browser that starts on a busy machine
RESULTS: queue.Queue = queue.Queue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the page and takes its result."""

    def do_GET(self):
        self.answer(200 if self.path.startswith("/page") else 404, PAGE)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.answer(200, b"")
        RESULTS.put(json.loads(body))

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def open_page(browser, gateway):
    """The page's result, or None when there is none in time."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # "localhost" and "127.0.0.1" are two origins even without the ports.
    url = f"http://localhost:{server.server_port}/page?gateway={gateway}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", url,
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        # Read as it comes, so that a talkative browser does not block.
        said: list = []
        reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
        reader.start()
        try:
            return RESULTS.get(timeout=DEADLINE)
        except queue.Empty:
            print(b"".join(said[-20:]).decode(errors="replace"), file=sys.stderr)
            return None
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            server.shutdown()


def checks(result):
    """(name, what was found, what should have been)"""
    def of(step, *keys):
        value = result.get(step, {})
        for key in keys:
            value = value.get(key, {}) if isinstance(value, dict) else {}
        return value

    yield "no error", result.get("error"), None
    yield "register after a preflight", of("register", "status"), 200
    yield "the version is visible", of("products", "version") in ("v1", "v2"), True
    yield "me, with authorization", of("me", "body", "email"), result.get("email")
    yield "PATCH", of("change", "body", "displayName"), "A page"
    yield "an error is readable", (of("refused", "status"), of("refused", "body", "code")), (401, 16)
    yield "products", len(of("products", "body", "products") or []), 2
    yield "gRPC-Web", (of("list", "status"), of("list", "messageBytes") > 20), (200, True)
    yield "gRPC-Web trailers", "grpc-status: 0" in of("list", "trailers"), True
    yield "gRPC-Web version", of("list", "version") in ("v1", "v2"), True
    status = of("wrong", "grpcStatus") or of("wrong", "trailers")
    yield "gRPC-Web error", status == "3" or "grpc-status: 3" in status, True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--browser", default=shutil.which("chromium") or "chromium")
    arguments = parser.parse_args()
    result = open_page(arguments.browser, arguments.gateway)
    if result is None:
        sys.exit(f"the page told nothing in {DEADLINE} s")
    failed = 0
    for name, found, wanted in checks(result):
        good = found == wanted
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'}  {name}" + ("" if good else f": {found!r}, not {wanted!r}"))
    if failed:
        sys.exit(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
