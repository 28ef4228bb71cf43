"""Which tile is fastest here: pure choice, and a file that remembers it.

In: the table's row for some work, and a timer. Out: the fastest of a few tiles around that row. A GPU is asked once for
each kernel, head sizes, dtype and cap; the answer is kept in the user's cache folder, in a file of its own for each
device, torch, triton and state of the kernels' source, so that an update asks again. The table was chosen by compiling,
not by measuring, which is why the GPU is asked at all. Ranks of a job ask each for itself: files are replaced whole,
the last one wins, and one that cannot be read counts as empty. Tiles change the order of sums, hence the last bits:
what must be the same bits on every machine runs with the table alone (`TritonKernel(tune=False)`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ring_worker.attention.kernels.tile_table import Shape, Tile

SOURCES = ("triton_tiles.py", "triton_forward.py", "triton_backward.py", "triton_described.py")
LEAST_GAIN = 0.02


@dataclass(frozen=True, slots=True)
class Work:
    """What a tile is chosen for. `kernel`, `dtype`, `target` as in the table; `capped`: with a soft cap."""

    kernel: str
    shape: Shape
    dtype: str
    target: str
    capped: bool

    def __str__(self) -> str:
        return f"{self.kernel}-{self.target}-{self.shape}-{self.dtype}{'-softcap' if self.capped else ''}"


def candidates(row: Tile) -> list[Tile]:
    """The row first, then its neighbours: one more or less stage, the other number of warps, either block halved."""
    near = [
        row,
        replace(row, stages=row.stages + 1),
        replace(row, stages=max(1, row.stages - 1)),
        replace(row, warps=4 if row.warps == 8 else 8),
        replace(row, block_k=max(16, row.block_k // 2)),
        replace(row, block_q=max(16, row.block_q // 2)),
        replace(row, block_k=row.block_k * 2),
    ]
    return list(dict.fromkeys(near))


def fastest(row: Tile, seconds: Callable[[Tile], float]) -> Tile:
    """The fastest candidate. The row stays unless another is faster by LEAST_GAIN; `seconds` is inf for what fails."""
    times = {tile: seconds(tile) for tile in candidates(row)}
    best = min(times, key=lambda tile: times[tile])
    return best if times[best] < times[row] * (1 - LEAST_GAIN) else row


def cache_file(device: str, versions: str, cache: Path | None = None) -> Path:
    """Where the choices for a device are kept. `versions`: of torch and triton."""
    if cache is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    source = b"".join((Path(__file__).parent / name).read_bytes() for name in SOURCES)
    mark = hashlib.sha256(versions.encode() + b"\0" + source).hexdigest()[:16]
    return cache / "ring-training" / f"tiles-{re.sub(r'[^A-Za-z0-9]+', '-', device)}-{mark}.json"


class Choices:
    """Tiles by work, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tiles = _read(path)

    def tile(self, work: Work, row: Tile, timer: Callable[[], Callable[[Tile], float]]) -> Tile:
        """The remembered choice, or a new one, which is remembered. `timer` is made only to choose: it holds memory."""
        if str(work) not in self._tiles:
            self._tiles[str(work)] = fastest(row, timer())
            self._tiles = {**_read(self.path), **self._tiles}
            with suppress(OSError):  # without a folder to write to, the next process asks again
                _write(self.path, self._tiles)
        return self._tiles[str(work)]


def _read(path: Path) -> dict[str, Tile]:
    try:
        return {name: Tile(**fields) for name, fields in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(path: Path, tiles: dict[str, Tile]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
        json.dump({name: asdict(tile) for name, tile in sorted(tiles.items())}, file, indent=1)
    os.replace(file.name, path)
