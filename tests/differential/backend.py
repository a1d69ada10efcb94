"""The upstream of every proxy: says what it saw, in bytes, and answers as asked.

A server of its own for each proxy, so that a request that was smuggled past a
proxy is seen as one too many. It understands only what a careful reader of RFC
9112 must, and never repairs.
"""

import json
import re
import socket
import threading

# Answers that no ordinary server would give, by path.
ANSWERS = {
    "/answer/204-with-body": b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello",
    "/answer/304-with-length": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"a\"\r\n\r\n",
    "/answer/100-first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "/answer/103-first": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "/answer/no-reason": b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok",
    "/answer/odd-status": b"HTTP/1.1 799 Odd\r\ncontent-length: 2\r\n\r\nok",
    "/answer/until-close": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok",
    "/answer/http10": b"HTTP/1.0 200 OK\r\n\r\nok",
    "/answer/chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "/answer/chunked-and-length": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 99\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    ),
    "/answer/two-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
    "/answer/bad-length": b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nok",
    "/answer/bad-chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    "/answer/cut-body": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nok",
    "/answer/garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
    "/answer/nothing": b"",
    "/answer/connection-names": (
        b"HTTP/1.1 200 OK\r\nconnection: x-private\r\nx-private: 1\r\nkeep-alive: timeout=5\r\n"
        b"x-public: 1\r\ncontent-length: 2\r\n\r\nok"
    ),
    "/answer/two-cookies": (
        b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 2\r\n\r\nok"
    ),
    "/answer/space-before-colon": b"HTTP/1.1 200 OK\r\nx-a : 1\r\ncontent-length: 2\r\n\r\nok",
    "/answer/large-head": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-large: " + b"a" * 30000 + b"\r\n\r\nok"
    ),
}
CLOSES = {"until-close", "http10", "cut-body", "garbage", "nothing", "bad-chunk", "bad-length",
          "two-lengths", "204-with-body", "304-with-length"}


class Backend:
    """Listens on a free port of loopback."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.seen = []
        threading.Thread(target=self.accept, daemon=True).start()

    def take(self):
        """What was seen since the last call."""
        with self.lock:
            seen, self.seen = self.seen, []
        return seen

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            connection.settimeout(20)
            reader = connection.makefile("rb")
            try:
                while self.one(connection, reader):
                    pass
            except (OSError, ValueError):
                pass

    def one(self, connection, reader):
        line = reader.readline(70000)
        if not line.strip():
            return False
        method, target, version = (line.decode("latin-1").split(" ") + ["", ""])[:3]
        headers = []
        while (raw := reader.readline(70000)) not in (b"\r\n", b"\n", b""):
            name, _, value = raw.decode("latin-1").partition(":")
            headers.append((name.strip().lower(), value.strip()))
        values = lambda name: [value for key, value in headers if key == name]
        if "100-continue" in values("expect"):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, framing, trailers = read_body(reader, values)
        path = re.sub(r"^https?://[^/]*", "", target).split("?")[0]
        with self.lock:
            self.seen.append({
                "method": method, "target": target, "version": version.strip(), "headers": headers,
                "framing": framing, "body": body.decode("latin-1"), "trailers": trailers,
            })
        if path in ANSWERS:
            connection.sendall(ANSWERS[path])
            return path.removeprefix("/answer/") not in CLOSES
        text = json.dumps({"route": (values("x-route") or [""])[0]}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        connection.sendall(head % len(text) + (b"" if method == "HEAD" else text))
        return True


def read_body(reader, values):
    """(body, how it was framed, trailers)."""
    if "chunked" in [value.lower() for value in values("transfer-encoding")]:
        body, trailers = b"", []
        while size := int(reader.readline(1000).split(b";")[0], 16):
            body += reader.read(size)
            reader.readline(10)
        while (raw := reader.readline(70000)) not in (b"\r\n", b"\n", b""):
            trailers.append(raw.decode("latin-1").strip().lower())
        return body, "chunked", trailers
    if values("content-length"):
        return reader.read(int(values("content-length")[0])), "length", []
    return b"", "none", []
