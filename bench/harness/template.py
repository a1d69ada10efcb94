"""Configurations of the peers: files with @NAMES@ to fill in."""

import pathlib
import re

PEERS = pathlib.Path(__file__).resolve().parent.parent / "peers"
PLACE = re.compile(r"^(?P<indent> *)(?P<alone>@[A-Z0-9_]+@)$|@(?P<name>[A-Z0-9_]+)@", re.MULTILINE)


def fill(text, values):
    """Replaces each `@NAME@` by `values["NAME"]`.

    A name alone on its line may stand for several, which are indented as it is.
    """

    def replace(found):
        name = (found["alone"] or found[0]).strip("@")
        if name not in values:
            raise KeyError(f"no value for @{name}@")
        value = str(values[name])
        if found["alone"] is None:
            return value
        return "\n".join(found["indent"] + line if line else "" for line in value.splitlines())

    return PLACE.sub(replace, text)


def render(name, values, into):
    """Fills `bench/peers/NAME` and writes it to the file `into`."""
    text = fill((PEERS / name).read_text(), {"NAMES": "@NAMES@", **values})
    into.write_text(text)
    return into


def fragment(name, values):
    """A part of another configuration: filled, without its comments."""
    lines = (PEERS / name).read_text().splitlines()
    kept = [line for line in lines if not line.startswith("#")]
    return fill("\n".join(kept), values)
