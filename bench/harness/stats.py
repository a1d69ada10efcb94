"""Arithmetic: medians, bootstrap intervals, the order of rounds, the control."""

import math
import random

# Resamples of a bootstrap, and how much of them an interval holds.
RESAMPLES = 2000
CONFIDENCE = 0.95
# More than this share and the control has moved: the figures are void.
MOVED = 0.10


def quantile(values, share):
    """The value below which `share` (0 to 1) of `values` are, interpolated."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values):
    """The middle one."""
    return quantile(values, 0.5)


def bootstrap(values, seed=1):
    """The interval that the median lies in with 95 % confidence.

    Percentiles of the medians of resamples. The same values give the same
    interval: the generator is seeded.
    """
    if len(values) < 2:
        return (values[0], values[0])
    generator = random.Random(seed)
    medians = [median(generator.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    rest = (1 - CONFIDENCE) / 2
    return (quantile(medians, rest), quantile(medians, 1 - rest))


def summary(values):
    """`median`, `low`, `high` and all `values`; None for no values."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    low, high = bootstrap(values)
    return {"median": median(values), "low": low, "high": high, "values": values}


def abba(names, rounds):
    """The order of each round: forward, backward, backward, forward, ...

    What drifts slowly weighs on the first as much as on the last.
    """
    return [list(names) if index % 4 in (0, 3) else list(names)[::-1] for index in range(rounds)]


def movement(values):
    """By which share a control has moved.

    The larger of two: how far the medians of the first and the second half are
    apart (a drift), and how far the quartiles are apart (unrest); each relative
    to the median. A single outlier moves neither.
    """
    if len(values) < 2:
        return 0.0
    middle = median(values)
    half = len(values) // 2
    drift = abs(median(values[:half]) - median(values[-half:]))
    unrest = quantile(values, 0.75) - quantile(values, 0.25)
    return max(drift, unrest) / middle


def void(values):
    """Why figures measured beside this control are void; None when they are not."""
    moved = movement(values)
    if moved <= MOVED:
        return None
    return f"the control moved by {moved:.0%} (more than {MOVED:.0%})"
