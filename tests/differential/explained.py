"""Why Weir answers otherwise than another proxy.

Each entry: a pattern of cases, the peers that it is about, and why. The first that
fits is taken; one that fits nothing is reported.
"""

import fnmatch

NGINX, HAPROXY, ENVOY = ("nginx",), ("haproxy",), ("envoy",)
ALL = NGINX + HAPROXY + ENVOY

STRICT = "this peer repairs or ignores it; Weir refuses what RFC 9112 does not allow"
RETRY = "503 invites another try, and an empty answer may be bad luck; these peers say 502"

WHY = [
    # Methods and routing.
    ("route: method in lower case", ALL, "methods are case-sensitive (RFC 9110 §9.1): `post` is "
     "another method, for which there is no route"),
    # Paths. Weir brings each to one form, by which it routes and decides who may, and
    # sends on that form: so the upstream cannot understand another.
    ("path: escaped slash*", NGINX, "nginx takes it for a slash and passes it on as it came; Weir "
     "and Envoy refuse what two readers may read in two ways"),
    ("path: escaped slash*", HAPROXY, "HAProxy compares texts: no route; Weir refuses"),
    ("path: *backslash", NGINX + HAPROXY, "no route for them; Weir refuses a separator of some systems"),
    ("path: backslash", ENVOY, "Envoy makes it a slash; Weir refuses, as it may not be one upstream"),
    ("path: dot-dot with a parameter", NGINX + HAPROXY, "no route for them; Weir refuses what some "
     "servers read as `..`"),
    ("path: dot-dot with a parameter", ENVOY, "Envoy reads it as `..`; Weir refuses"),
    ("path: NUL escaped", HAPROXY, "HAProxy compares texts: no route; Weir refuses"),
    ("path: broken escape*", HAPROXY + ENVOY, "no route for them; Weir refuses what is no path (RFC 3986 §2.1)"),
    ("path: dot-dot out", NGINX, "nginx refuses to go above the root; RFC 3986 §5.2.4 stays there"),
    ("path: fragment", HAPROXY + ENVOY, "a fragment is for user agents; Weir cuts it off, these refuse"),
    ("path: fragment", NGINX, "nginx routes without it and passes it on"),
    ("path: raw UTF-8", HAPROXY + ENVOY, "they refuse; Weir escapes it, as RFC 3987 §3.1 does"),
    ("path: brackets", ALL, "Weir escapes what no path may hold (RFC 3986 §3.3); these pass it on"),
    ("path: *", HAPROXY, "HAProxy compares paths as they came, unless it is told to normalise"),
    ("path: *", NGINX, "nginx routes by the one form and passes on what came"),
    ("route: letter escaped", NGINX, "nginx routes by the one form and passes on what came"),
    ("route: letter escaped", HAPROXY, "HAProxy compares paths as they came"),
    ("route: lower-case escape", ALL, "Weir writes escapes in capitals (RFC 3986 §6.2.2.1)"),
    # Hosts.
    ("host: none", HAPROXY, "HAProxy lets HTTP/1.1 without Host through to routing"),
    ("host: none, HTTP/1.0", NGINX + HAPROXY, "Weir routes by host: without one it is a bad "
     "request, whatever the version"),
    ("host: empty", HAPROXY + ENVOY, "an empty Host names no service: Weir says so by 400"),
    ("host: two, *", ALL, "two Host headers are 400 (RFC 9112 §3.2); Envoy joins them, HAProxy "
     "takes equal ones as one"),
    ("host: with a dot", HAPROXY, "the dot of a fully qualified name is not part of it; this "
     "configuration of HAProxy compares texts"),
    ("host: with a dot", ENVOY, "Envoy is set to strip the dot for the upstream too; Weir passes "
     "Host on as it came"),
    ("host: with a user", ALL, "user information in Host is 400 (RFC 9110 §4.2.4), elsewhere an unknown host"),
    ("host: with a path", HAPROXY, STRICT),
    ("host: with a comma", HAPROXY, "HAProxy looks at the first part of a list; Host is none"),
    ("host: with a space", HAPROXY, STRICT),
    ("host: absolute form, no host", NGINX + HAPROXY, "the authority of the absolute form is the "
     "host (RFC 9112 §3.2.2); these insist on Host as well"),
    ("host: absolute form of another", NGINX, "nginx passes on the client's Host, which RFC 9112 "
     "§3.2.2 says to replace by the authority of the target"),
    ("host: absolute form of another", HAPROXY, "HAProxy refuses a Host unlike the authority; RFC "
     "9112 §3.2.2 says to ignore it"),
    ("host: absolute form*", HAPROXY, "HAProxy passes the absolute form on; to an origin the origin "
     "form is sent (RFC 9112 §3.2.1)"),
    ("host: asterisk form of GET", HAPROXY, "no route there; `*` is for OPTIONS only: 400"),
    ("host: asterisk form of OPTIONS", ALL, "`*` is about the proxy itself; Weir has nothing to say there"),
    ("host: CONNECT", ALL, "Weir has no CONNECT and says 501"),
    # Framing.
    ("framing: length and chunked", NGINX + ENVOY, "RFC 9112 §6.3 allows both: refusing, or taking "
     "the chunks, dropping the length and closing the connection, as Weir and HAProxy do"),
    ("framing: chunked and length", NGINX + ENVOY, "as above"),
    ("framing: two lengths, equal", NGINX + ENVOY, "equal lengths may be taken as one (RFC 9110 §8.6)"),
    ("framing: two lengths in one", HAPROXY, STRICT),
    ("framing: chunked twice", ALL, "refused by all, by one with another status"),
    ("framing: two chunked", ALL, "refused by all, by one with another status"),
    ("framing: gzip, chunked", ALL, "refused by all, by one with another status"),
    ("framing: chunked, identity", ALL, "refused by all, by one with another status"),
    ("framing: identity", ALL, "refused by all, by one with another status"),
    ("framing: xchunked", ALL, "refused by all, by one with another status"),
    ("framing: chunked with a vertical tab", NGINX, "refused by both, with another status"),
    ("framing: chunked on a folded line", HAPROXY + ENVOY, "these unfold it; a server may refuse "
     "(RFC 9112 §5.2), and a Transfer-Encoding that two read differently is how requests are smuggled"),
    ("framing: trailers", ENVOY, "Envoy drops trailers of requests by default"),
    ("framing: trailers", NGINX, "nginx reads the whole body first, sends a length, and drops trailers"),
    ("framing: a forbidden trailer", HAPROXY, "HAProxy passes on trailers that RFC 9110 §6.5.1 forbids"),
    ("framing: chunk extension with a line feed", NGINX + HAPROXY, STRICT),
    ("framing: chunk without its end", ENVOY, STRICT),
    ("framing: chunks with line feeds only", NGINX + HAPROXY, STRICT),
    ("framing: HTTP/1.0 chunked", HAPROXY, "HTTP/1.0 has no Transfer-Encoding (RFC 9112 §6.1): Weir refuses"),
    ("framing: expect*", HAPROXY + ENVOY, "Expect is answered by each hop that reads the body; "
     "Weir does not pass it on"),
    ("framing: none of a POST", ENVOY, "Envoy writes content-length: 0; both mean no body"),
    ("framing: *", NGINX, "nginx reads the whole body first and sends a length"),
    # Syntax.
    ("syntax: obsolete fold", HAPROXY + ENVOY, STRICT),
    ("syntax: no colon", NGINX, STRICT),
    ("syntax: name with a bracket", NGINX, STRICT),
    ("syntax: NUL in a value", HAPROXY, STRICT),
    ("syntax: bare CR in a value", ENVOY, STRICT),
    ("syntax: control byte in a value", NGINX + HAPROXY, STRICT),
    ("syntax: name with an underscore", NGINX, "nginx drops such headers by default; they are valid"),
    ("syntax: HTTP/1.0", ENVOY, "Envoy takes no HTTP/1.0 by default"),
    ("syntax: HTTP/1.2", NGINX + HAPROXY, "nobody has HTTP/1.2; Weir refuses what it does not know"),
    ("syntax: HTTP/2.0 as text", NGINX + HAPROXY, STRICT),
    ("syntax: HTTP/3", NGINX, "refused by both, with another status"),
    ("syntax: unknown method", ENVOY, "methods are open (RFC 9110 §16.1); Envoy's parser has a list"),
    ("syntax: TRACE", NGINX, "nginx has no TRACE; a route may forbid it by its method"),
    ("syntax: 100 headers of 500 bytes", HAPROXY + ENVOY, "limits differ: Weir takes 64 KiB and 100 headers"),
    ("syntax: 150 headers", NGINX, "limits differ: Weir takes 100 headers over HTTP/1.1"),
    ("syntax: no version", NGINX, "nginx answers HTTP/0.9"),
    ("syntax: two spaces", ALL, STRICT),
    ("syntax: tab for a space", HAPROXY + ENVOY, STRICT),
    ("syntax: space at the end", NGINX + ENVOY, STRICT),
    # Hop by hop.
    ("hop: connection names host", ENVOY, "Envoy refuses; Weir keeps Host, whatever Connection says"),
    ("hop: connection names *", NGINX + HAPROXY, "what Connection names is for one hop (RFC 9110 "
     "§7.6.1); these pass it on"),
    ("hop: keep-alive", HAPROXY, "Keep-Alive is for one hop; HAProxy passes it on"),
    ("hop: proxy-connection", NGINX + HAPROXY, "it is for one hop (RFC 9112 appendix C.2.2); these pass it on"),
    ("hop: te trailers", HAPROXY + ENVOY, "gRPC needs `te: trailers` at the upstream, so Weir keeps it"),
    ("hop: upgrade to h2c", NGINX + HAPROXY, "HTTP2-Settings is named by Connection and goes with it"),
    ("hop: upgrade to something", HAPROXY, "HAProxy passes on what Connection names"),
    ("hop: upgrade to something", ENVOY, "Envoy refuses an upgrade that is not configured; a server "
     "may ignore it (RFC 9110 §7.8), as Weir does"),
    ("hop: two cookies", ALL, "Weir joins them: a user agent sends one (RFC 6265 §5.4), HTTP/2 several"),
    ("hop: max-forwards of TRACE", NGINX, "nginx has no TRACE"),
    ("hop: max-forwards of OPTIONS", ENVOY, "Envoy writes content-length: 0; both mean no body"),
    # Answers.
    ("answer: 204-with-body", ENVOY, "bytes after a 204 are not its body; Envoy calls the whole answer bad"),
    ("answer: 10?-first", NGINX, "nginx takes an interim answer for the answer"),
    ("answer: chunked-and-length", ENVOY, "Envoy calls it bad; Weir takes the chunks and drops the length"),
    ("answer: two-lengths", NGINX, "nginx takes the first; Weir cannot know which is true"),
    ("answer: bad-length", NGINX, "nginx ignores it; Weir cannot know where the answer ends"),
    ("answer: bad-chunk", HAPROXY + ENVOY, "what is wrong comes after the head: the connection ends, "
     "sooner or later"),
    ("answer: garbage", NGINX, "nginx takes it for HTTP/0.9"),
    ("answer: nothing", NGINX + HAPROXY, RETRY),
    ("answer: large-head", NGINX, "limits differ: Weir takes heads of 64 KiB"),
    ("answer: to HTTP/1.0, *", ENVOY, "Envoy takes no HTTP/1.0 by default"),
]


def why(case, peer, used):
    """The explanation of a difference, if there is one; notes which it was."""
    for i, (pattern, peers, text) in enumerate(WHY):
        if peer in peers and fnmatch.fnmatchcase(case, pattern):
            used.add(i)
            return text
    return None


def unused(used, there):
    """Explanations that explained nothing, of peers that are there."""
    return [
        f"{pattern} ({', '.join(peers)})"
        for i, (pattern, peers, _) in enumerate(WHY)
        if i not in used and any(peer in there for peer in peers)
    ]
