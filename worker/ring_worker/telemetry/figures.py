"""From what each rank measured to the figures of its ring: pure sums, and one ratio.

Between ranks the times travel as float64 (`pack`, `unpack`): one gather for a logged step.
"""

from __future__ import annotations

from collections.abc import Sequence

from ring_worker.contract import RingFigures
from ring_worker.telemetry.record import UNPROBED, PassTimes, Probes

PACKED = len(PassTimes.__slots__)  # numbers in a packed PassTimes


def pack(times: PassTimes) -> list[float]:
    """`PACKED` numbers, exact as float64 up to 2^53 bytes."""
    return [float(getattr(times, name)) for name in PassTimes.__slots__]


def unpack(numbers: Sequence[float]) -> PassTimes:
    """The way back of `pack`."""
    values = dict(zip(PassTimes.__slots__, numbers, strict=True))
    whole = {name: int(values.pop(name)) for name in ("bytes", "passes")}
    return PassTimes(**values, **whole)  # type: ignore[arg-type]  # the two whole numbers are named above


def ring_figures(index: int, ranks: Sequence[tuple[PassTimes, PassTimes]], probes: Probes = UNPROBED) -> RingFigures:
    """The figures of ring `index` from (forward, backward) of each of its ranks. `probes`: of all of them."""
    of_rank = [forward + backward for forward, backward in ranks]
    total = sum(of_rank, start=PassTimes())
    mean_wall = total.wall / len(of_rank)
    return RingFigures(
        index=index,
        wall_seconds=total.wall,
        compute_seconds=total.compute,
        comm_seconds=total.comm,
        exposed_seconds=total.exposed,
        skew_seconds=total.skew,
        ideal_seconds=total.ideal,
        bytes=total.bytes,
        imbalance=max(times.wall for times in of_rank) / mean_wall if mean_wall > 0 else 1.0,
        probed_rows=probes.rows,
        probe_mismatches=probes.mismatches,
    )
