"""Free nodes as a tree of counts, from which rings are cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ring_operator.placement.cost import Path

Cut = dict[Path, int]  # closest domain -> nodes of it


class Room:
    """Free nodes by closest domain, and the sums over all wider domains. `()` is the whole network."""

    def __init__(self, counts: Mapping[Path, int], levels: int) -> None:
        self.levels = levels
        self.left: dict[Path, int] = {}
        self.inner: dict[Path, list[Path]] = {}
        for path, count in sorted(counts.items()):
            self._plant(path)
            self.add({path: count})

    def _plant(self, path: Path) -> None:
        for depth in range(self.levels, 0, -1):
            inner = self.inner.setdefault(path[: depth - 1], [])
            if path[:depth] not in inner:
                inner.append(path[:depth])
        self.left.setdefault(path, 0)

    def add(self, cut: Mapping[Path, int], sign: int = 1) -> None:
        for path, count in cut.items():
            for depth in range(self.levels + 1):
                self.left[path[:depth]] = self.left.get(path[:depth], 0) + sign * count

    def domains(self, depth: int) -> list[Path]:
        """Those that share so many levels; 0: the whole network."""
        return [path for path in self.left if len(path) == depth]

    def take(self, within: Path, count: int, largest: bool = True) -> Cut:
        """Cut `count` nodes from a domain that has them, in few pieces; they are taken out of it.

        An inner domain that fits best holds all of it, else two that fill it exactly; else whole domains go in, the
        largest (or the smallest) first, and the rest fits best where it leaves least.
        """
        cut: Cut = {}
        for path, number in self._shares(within, count, largest):
            cut[path] = cut.get(path, 0) + number
        self.add(cut, -1)
        return cut

    def _shares(self, within: Path, count: int, largest: bool) -> Iterable[tuple[Path, int]]:
        if len(within) == self.levels:
            yield within, count
            return
        rest = count
        inner = sorted(
            (path for path in self.inner.get(within, ()) if self.left[path]), key=lambda p: (self.left[p], p)
        )
        while rest:
            if fits := next((path for path in inner if self.left[path] >= rest), None):
                yield from self._shares(fits, rest, largest)
                return
            if pair := self._pair(inner, rest):
                for path in pair:
                    yield from self._shares(path, self.left[path], largest)
                return
            whole = inner.pop() if largest else inner.pop(0)
            yield from self._shares(whole, self.left[whole], largest)
            rest -= self.left[whole]

    def _pair(self, inner: list[Path], count: int) -> tuple[Path, Path] | None:
        by_room: dict[int, Path] = {}
        for path in inner:
            if (other := by_room.get(count - self.left[path])) is not None:
                return other, path
            by_room.setdefault(self.left[path], path)
        return None
