"""Sets of tokens as ascending, disjoint ranges that do not touch."""

from __future__ import annotations

from collections.abc import Iterable

from ring_worker.attention.layout import Range

Ranges = tuple[Range, ...]


def common(a: Ranges, b: Ranges) -> Ranges:
    """What is in both."""
    if a == b:
        return a
    found, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        start, stop = max(a[i].start, b[j].start), min(a[i].stop, b[j].stop)
        if start < stop:
            found.append(Range(start, stop))
        if a[i].stop < b[j].stop:
            i += 1
        else:
            j += 1
    return tuple(found)


def without(a: Ranges, b: Ranges) -> Ranges:
    """What is in `a` and not in `b`."""
    if a == b or not a:
        return ()
    edges = [0, *(edge for r in b for edge in r), a[-1].stop]
    gaps = tuple(Range(*pair) for pair in zip(edges[::2], edges[1::2], strict=True) if pair[0] < pair[1])
    return common(a, gaps)


def tokens(ranges: Iterable[Range]) -> int:
    return sum(r.size for r in ranges)
