"""Why Weir answers otherwise than another proxy.

Each entry: a pattern of cases, the peers that it is about, and why. The first that
fits is taken; one that fits nothing is reported.
"""

import fnmatch

ALL = ("nginx", "haproxy", "envoy")

WHY = [
]


def why(case, peer, used):
    """The explanation of a difference, if there is one; notes which it was."""
    for i, (pattern, peers, text) in enumerate(WHY):
        if peer in peers and fnmatch.fnmatchcase(case, pattern):
            used.add(i)
            return text
    return None


def unused(used):
    """Explanations that explained nothing."""
    return [f"{pattern} ({', '.join(peers)})" for i, (pattern, peers, _) in enumerate(WHY) if i not in used]
