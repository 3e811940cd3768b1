"""From a load generator's answers to figures: percentiles, what was recorded, how memory went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """p50, p90, p99 and the largest, in milliseconds, of how many."""
    values = np.asarray(list(seconds)) * 1e3
    if not len(values):
        return {"count": 0}
    p50, p90, p99 = np.percentile(values, (50, 90, 99))
    return {"count": len(values), "p50": float(p50), "p90": float(p90), "p99": float(p99), "max": float(values.max())}


def accounted(answered: Sequence[Sequence[Any]], records: Sequence[tuple[int, str]]) -> dict[str, int]:
    """Whether each answered request stands in the records once, with the image that was sent.

    answered: [begin, seconds, status, record, hash] each. records: (number, hash) each. All of it but ``answered`` and
    ``unanswered`` must be 0. unanswered: records whose answer the client never had whole; at a kill there may be some.
    """
    recorded = dict(records)
    times = Counter(image_hash for _, image_hash in records)
    accepted = [(record, image_hash) for _, _, status, record, image_hash in answered if status == 200]
    hashes = {image_hash for _, image_hash in accepted}
    return {
        "answered": len(accepted),
        "missing": sum(record not in recorded for record, _ in accepted),
        "another_image": sum(recorded.get(record, image_hash) != image_hash for record, image_hash in accepted),
        "number_given_twice": len(accepted) - len({record for record, _ in accepted}),
        "recorded_twice": sum(count > 1 for count in times.values()),
        "recorded_though_refused": sum(row[4] in times for row in answered if row[2] != 200),
        "unanswered": sum(image_hash not in hashes for image_hash in times),
    }


def faults(counts: dict[str, int]) -> dict[str, int]:
    """Of ``accounted``'s counts those that must be 0 and are not."""
    return {name: count for name, count in counts.items() if count and name not in ("answered", "unanswered")}


def statuses(answered: Sequence[Sequence[Any]]) -> dict[str, int]:
    """How often each status came."""
    return {str(status): count for status, count in sorted(Counter(row[2] for row in answered).items())}


def rate(answered: Sequence[Sequence[Any]], begin: float, end: float) -> float:
    """Images a second that were answered with 200 between the two times."""
    done = [row[0] + row[1] for row in answered if row[2] == 200]
    return sum(begin <= time < end for time in done) / (end - begin)


def flatness(seconds: Sequence[float], sizes: Sequence[int]) -> dict[str, float]:
    """Resident memory over the second half of the samples: slope by least squares, and how sure that is.

    slope and its standard error in MB a minute; residual: the samples' deviation from the line, MB.
    """
    half = len(seconds) // 2
    x, y = np.asarray(seconds[half:]) / 60, np.asarray(sizes[half:]) / 1e6
    found = {"samples": len(x), "first_mb": sizes[0] / 1e6, "largest_mb": max(sizes) / 1e6, "last_mb": sizes[-1] / 1e6}
    if len(x) < 3:
        return found
    slope, at_zero = np.polyfit(x, y, 1)
    left = y - (slope * x + at_zero)
    deviation = float(np.sqrt((left**2).sum() / (len(x) - 2)))
    error = deviation / float(np.sqrt(((x - x.mean()) ** 2).sum()))
    thirds = [float(np.median(part)) for part in np.array_split(y, 3)]
    return {
        **found,
        "slope_mb_a_minute": float(slope),
        "slope_error": error,
        "residual_mb": deviation,
        "change_over_thirds_mb": thirds[-1] - thirds[0],
    }
