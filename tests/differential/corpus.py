"""The requests, as bytes. @HOST@ is `shop.example`; what a name says is what is odd.

Each is sent on a connection of its own, which is then half read: until the proxy
closes it, or has been quiet for a moment after an answer.
"""

CASES = {}


def case(name, raw):
    """Adds a request."""
    assert name not in CASES, name
    CASES[name] = raw if isinstance(raw, bytes) else raw.encode("latin-1")


def get(name, target, *headers, method="GET", version="HTTP/1.1", body=""):
    """Adds a request that is odd in its target or headers only."""
    lines = [f"{method} {target} {version}", "host: shop.example", *headers]
    case(name, "\r\n".join(lines) + "\r\n\r\n" + body)


def add_routing():
    for name, path in {
        "exact": "/exact", "exact, trailing slash": "/exact/", "exact, query": "/exact?a=1",
        "exact, other case": "/Exact", "prefix": "/prefix", "prefix, slash": "/prefix/",
        "prefix, below": "/prefix/a", "prefix, not a segment": "/prefixes",
        "longer prefix": "/prefix/long", "longer prefix, below": "/prefix/long/a",
        "longer prefix, not a segment": "/prefix/longer", "root": "/", "elsewhere": "/elsewhere",
        "empty query": "/exact?", "semicolon": "/exact;a=1", "tilde escaped": "/%7Eexact",
        "letter escaped": "/%65xact", "lower-case escape": "/prefix/%c3%a4",
        "upper-case escape": "/prefix/%C3%A4", "space escaped": "/prefix/a%20b",
        "plus": "/prefix/a+b", "percent escaped": "/prefix/100%25",
        "question mark escaped": "/exact%3Fa=1", "hash escaped": "/exact%23a",
    }.items():
        get(f"route: {name}", path)
    get("route: header", "/header", "x-env: canary")
    get("route: header, other value", "/header", "x-env: other")
    get("route: header, other case of the value", "/header", "x-env: Canary")
    get("route: header, name in capitals", "/header", "X-ENV: canary")
    get("route: header twice, first fits", "/header", "x-env: canary", "x-env: other")
    get("route: method", "/method", "content-length: 0", method="POST")
    get("route: other method", "/method")
    get("route: method in lower case", "/method", "content-length: 0", method="post")


def add_paths():
    for name, path in {
        "dot segment": "/prefix/./a", "dot-dot": "/elsewhere/../prefix", "dot-dot out": "/../exact",
        "dot-dot at the end": "/prefix/long/..", "escaped dots": "/elsewhere/%2e%2e/prefix",
        "half escaped dots": "/elsewhere/.%2E/prefix", "double slash": "//exact",
        "double slash within": "/prefix//a", "escaped slash": "/prefix%2Flong",
        "escaped slash, lower case": "/elsewhere%2f..%2fexact", "backslash": "/prefix\\long",
        "escaped backslash": "/prefix%5Clong", "dot-dot with a parameter": "/elsewhere/..;/exact",
        "NUL escaped": "/exact%00", "NUL raw": "/exact\0", "broken escape": "/exact%zz",
        "broken escape at the end": "/exact%4", "fragment": "/exact#a", "tab": "/exact\ta",
        "space": "/exact a", "raw UTF-8": "/prefix/\u00c3\u00a4", "double escape": "/%2565xact",
        "overlong dot": "/elsewhere/%c0%ae%c0%ae/exact", "no slash first": "exact",
        "brackets": "/prefix/[a]", "quote": "/prefix/\"a\"", "pipe": "/prefix/a|b",
        "8 KiB": "/prefix/" + "a" * 8000, "70 KiB": "/prefix/" + "a" * 70000,
    }.items():
        get(f"path: {name}", path)


def add_hosts():
    def host(name, *lines, target="/exact", version="HTTP/1.1"):
        case(f"host: {name}", "\r\n".join([f"GET {target} {version}", *lines]) + "\r\n\r\n")

    host("none")
    host("none, HTTP/1.0", version="HTTP/1.0")
    host("empty", "host:")
    host("two, equal", "host: shop.example", "host: shop.example")
    host("two, other", "host: shop.example", "host: other.example")
    host("in capitals", "host: SHOP.example")
    host("with a port", "host: shop.example:8080")
    host("with a dot", "host: shop.example.")
    host("unknown", "host: unknown.example")
    host("an address", "host: 127.0.0.1")
    host("with a user", "host: me@shop.example")
    host("with a path", "host: shop.example/a")
    host("with a comma", "host: shop.example, other.example")
    host("with a space", "host: shop .example")
    host("absolute form", "host: shop.example", target="http://shop.example/exact")
    host("absolute form of another", "host: other.example", target="http://shop.example/exact")
    host("absolute form, https", "host: shop.example", target="https://shop.example/exact")
    host("absolute form, no host", target="http://shop.example/exact")
    host("asterisk form of GET", "host: shop.example", target="*")
    case("host: asterisk form of OPTIONS", "OPTIONS * HTTP/1.1\r\nhost: shop.example\r\n\r\n")
    case("host: CONNECT", "CONNECT shop.example:80 HTTP/1.1\r\nhost: shop.example:80\r\n\r\n")


def add_framing():
    def post(name, headers, body=""):
        case(
            f"framing: {name}",
            "\r\n".join(["POST /exact HTTP/1.1", "host: shop.example", *headers]) + "\r\n\r\n" + body,
        )

    smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: shop.example\r\n\r\n"
    chunked = "2\r\nok\r\n0\r\n\r\n"
    te = "transfer-encoding: chunked"
    post("length", ["content-length: 2"], "ok")
    post("chunked", [te], chunked)
    post("none of a POST", [])
    post("length of 0", ["content-length: 0"])
    post("length and chunked", ["content-length: 4", te], smuggled)
    post("chunked and length", [te, "content-length: 4"], smuggled)
    post("two lengths, equal", ["content-length: 2", "content-length: 2"], "ok")
    post("two lengths, other", ["content-length: 2", "content-length: 3"], "ok!")
    post("two lengths in one", ["content-length: 2, 2"], "ok")
    post("length with a sign", ["content-length: +2"], "ok")
    post("negative length", ["content-length: -2"], "ok")
    post("length in hex", ["content-length: 0x2"], "ok")
    post("length with a space", ["content-length: 2 0"], "ok")
    post("empty length", ["content-length:"], "")
    post("huge length", ["content-length: 99999999999999999999"], "ok")
    post("chunked twice", ["transfer-encoding: chunked, chunked"], chunked)
    post("two chunked", [te, te], chunked)
    post("gzip, chunked", ["transfer-encoding: gzip, chunked"], chunked)
    post("chunked, identity", ["transfer-encoding: chunked, identity"], chunked)
    post("identity", ["transfer-encoding: identity", "content-length: 2"], "ok")
    post("xchunked", ["transfer-encoding: xchunked", "content-length: 2"], "ok")
    post("chunked in capitals", ["Transfer-Encoding: CHUNKED"], chunked)
    post("chunked with a vertical tab", ["transfer-encoding: \x0bchunked"], smuggled)
    post("chunked after a space before the colon", ["transfer-encoding : chunked"], smuggled)
    post("chunked on a folded line", ["transfer-encoding:", " chunked"], smuggled)
    post("chunk extension", [te], "2;a=b\r\nok\r\n0\r\n\r\n")
    post("chunk extension with a line feed", [te], "2;a\nok\r\n0\r\n\r\n")
    post("chunk size with a space", [te], "2 \r\nok\r\n0\r\n\r\n")
    post("chunk size with zeros", [te], "0000000000000000002\r\nok\r\n0\r\n\r\n")
    post("chunk size too large", [te], "fffffffffffffffff\r\nok\r\n0\r\n\r\n")
    post("chunk size no number", [te], "zz\r\nok\r\n0\r\n\r\n")
    post("chunk size with a sign", [te], "+2\r\nok\r\n0\r\n\r\n")
    post("chunk without its end", [te], "2\r\nokk\r\n0\r\n\r\n")
    post("chunks with line feeds only", [te], "2\nok\n0\n\n")
    post("trailers", [te, "trailer: x-end"], "2\r\nok\r\n0\r\nx-end: 1\r\n\r\n")
    post("a forbidden trailer", [te], "2\r\nok\r\n0\r\ncontent-length: 9\r\nhost: evil\r\n\r\n")
    post("expect", ["content-length: 2", "expect: 100-continue"], "ok")
    post("expect something else", ["content-length: 2", "expect: magic"], "ok")
    get("framing: GET with a length", "/exact", "content-length: 2", body="ok")
    get("framing: GET chunked", "/exact", te, body=chunked)
    get("framing: HEAD with a length", "/exact", "content-length: 2", method="HEAD", body="ok")
    get("framing: DELETE with a body", "/exact", "content-length: 2", method="DELETE", body="ok")
    get("framing: HTTP/1.0 chunked", "/exact", te, version="HTTP/1.0", method="POST", body=chunked)
    line = "GET /exact HTTP/1.1\r\nhost: shop.example\r\n\r\n"
    case("framing: two pipelined", line + line.replace("/exact", "/prefix"))
    case("framing: empty lines first", "\r\n\r\n" + line)


def add_syntax():
    get("syntax: obsolete fold", "/exact", "x-a: 1", " 2")
    get("syntax: space before the colon", "/exact", "x-a : 1")
    get("syntax: no colon", "/exact", "x-a")
    get("syntax: empty name", "/exact", ": 1")
    get("syntax: empty value", "/exact", "x-a:")
    get("syntax: name with a space", "/exact", "x a: 1")
    get("syntax: name with a bracket", "/exact", "x(a): 1")
    get("syntax: NUL in a value", "/exact", "x-a: 1\x002")
    get("syntax: bare CR in a value", "/exact", "x-a: 1\r2")
    get("syntax: control byte in a value", "/exact", "x-a: 1\x012")
    get("syntax: high bytes in a value", "/exact", "x-a: \u00e4")
    get("syntax: name with an underscore", "/exact", "x_a: 1")
    get("syntax: HTTP/1.0", "/exact", version="HTTP/1.0")
    get("syntax: HTTP/1.2", "/exact", version="HTTP/1.2")
    get("syntax: HTTP/2.0 as text", "/exact", version="HTTP/2.0")
    get("syntax: HTTP/3", "/exact", version="HTTP/3")
    get("syntax: http/1.1", "/exact", version="http/1.1")
    get("syntax: unknown method", "/exact", method="BREW")
    get("syntax: method with a bracket", "/exact", method="G(T")
    get("syntax: TRACE", "/exact", method="TRACE")
    get("syntax: 100 headers of 500 bytes", "/exact", *[f"x-{i}: " + "a" * 490 for i in range(100)])
    get("syntax: 90 headers", "/exact", *[f"x-{i}: 1" for i in range(90)])
    get("syntax: 150 headers", "/exact", *[f"x-{i}: 1" for i in range(150)])
    get("syntax: header of 20 KiB", "/exact", "x-a: " + "a" * 20000)
    get("syntax: header of 70 KiB", "/exact", "x-a: " + "a" * 70000)
    case("syntax: line feeds only", "GET /exact HTTP/1.1\nhost: shop.example\n\n")
    case("syntax: no version", "GET /exact\r\n\r\n")
    case("syntax: two spaces", "GET  /exact HTTP/1.1\r\nhost: shop.example\r\n\r\n")
    case("syntax: tab for a space", "GET\t/exact HTTP/1.1\r\nhost: shop.example\r\n\r\n")
    case("syntax: space at the end", "GET /exact HTTP/1.1 \r\nhost: shop.example\r\n\r\n")
    case("syntax: space first", " GET /exact HTTP/1.1\r\nhost: shop.example\r\n\r\n")
    case("syntax: header line first folded", "GET /exact HTTP/1.1\r\n host: shop.example\r\n\r\n")
    case("syntax: TLS", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
    case("syntax: SSH", "SSH-2.0-OpenSSH_9.2\r\n")


def add_hops():
    get("hop: connection names a header", "/exact", "connection: x-private", "x-private: 1")
    get("hop: connection names host", "/exact", "connection: host")
    get("hop: connection names cookie", "/exact", "connection: close, cookie", "cookie: a=1")
    get("hop: keep-alive", "/exact", "keep-alive: timeout=5", "connection: keep-alive")
    get("hop: proxy-connection", "/exact", "proxy-connection: keep-alive")
    get("hop: proxy-authorization", "/exact", "proxy-authorization: Basic Zm9v")
    get("hop: te trailers", "/exact", "te: trailers", "connection: te")
    get("hop: te gzip", "/exact", "te: gzip", "connection: te")
    get("hop: upgrade to h2c", "/exact", "upgrade: h2c", "connection: upgrade, http2-settings",
        "http2-settings: AAMAAABkAAQAAP__")
    get("hop: upgrade to something", "/exact", "upgrade: magic", "connection: upgrade")
    get("hop: two cookies", "/exact", "cookie: a=1", "cookie: b=2")
    get("hop: forwarded for", "/exact", "x-forwarded-for: 10.0.0.1")
    get("hop: client certificate claimed", "/exact", "x-forwarded-client-cert: By=spiffe://evil")
    get("hop: max-forwards of TRACE", "/exact", "max-forwards: 0", method="TRACE")
    get("hop: max-forwards of OPTIONS", "/exact", "max-forwards: 0", method="OPTIONS")


def add_answers():
    from backend import ANSWERS

    for path in ANSWERS:
        get(f"answer: {path.removeprefix('/answer/')}", path)
    get("answer: HEAD", "/exact", method="HEAD")
    get("answer: to HTTP/1.0, chunked", "/answer/chunked", version="HTTP/1.0")
    get("answer: to HTTP/1.0, keep-alive", "/exact", "connection: keep-alive", version="HTTP/1.0")


add_routing()
add_paths()
add_hosts()
add_framing()
add_syntax()
add_hops()
add_answers()
