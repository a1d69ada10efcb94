"""JSON to gRPC: what is asked for, and what must come back."""

import http.client
import json

from . import procs


def fetch(target, path):
    """The body of an answer."""
    connection = http.client.HTTPConnection(target, timeout=10)
    try:
        connection.request("GET", path, headers={"host": "bench"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise procs.Failed(f"GET {path}: {response.status} {body[:300]!r}")
    return body


def prepare(entry, directory):
    """Completes the command of an entry: the path of one product, and the file
    that every answer must be equal to. Notes where two peers' JSON differ."""
    target = entry.running.target
    first = entry.running.proxies[0]

    def products():
        try:
            return json.loads(fetch(target, "/v1/products"))["products"]
        except (procs.Failed, OSError):
            return None

    product = first.wait_until(products, "answering")[0]
    path = f"/v1/products/{product['productId']}"
    body = fetch(target, path)
    expected = directory / f"{entry.peer}.json"
    expected.write_bytes(body)
    entry.command += ["--path", path, "--expect-file", expected]
    return json.loads(body)
