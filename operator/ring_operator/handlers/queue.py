"""Keys that are due: each once however often it is added, never with two workers, a failed one later each time."""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Any

DEBOUNCE_SECONDS = 0.05
BACK_OFF_FIRST, BACK_OFF_MOST = 0.25, 60.0

Key = tuple[str, str]


class Queue:
    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._running: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    @property
    def age(self) -> float:
        """Seconds for which the most overdue key has waited."""
        waiting = [due for key, due in self._due.items() if key not in self._running]
        return max(0.0, time.monotonic() - min(waiting)) if waiting else 0.0

    def add(self, key: Key, delay: float = DEBOUNCE_SECONDS) -> None:
        """Due after `delay` seconds, or earlier where it is already."""
        due = time.monotonic() + delay
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            self._wake.set()

    def failed(self, key: Key, at_least: float = 0.0) -> float:
        """Due again after a back-off that doubles. The seconds until then."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = max(at_least, min(BACK_OFF_MOST, BACK_OFF_FIRST * 2.0 ** min(count, 12)))
        self.add(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        self._due.pop(key, None)
        self._failures.pop(key, None)

    async def take(self) -> Key:
        """The next key that is due and that no worker has. `done` gives it back."""
        while True:
            now = time.monotonic()
            if (key := self._pop(now)) is not None:
                self._running.add(key)
                return key
            self._wake.clear()
            wait = self._heap[0][0] - now if self._heap else None
            await _wait(self._wake, wait)

    def done(self, key: Key) -> None:
        self._running.discard(key)
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], key))
        self._wake.set()

    def _pop(self, now: float) -> Key | None:
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) != due or key in self._running:
                continue  # taken earlier, or put back by `done`
            del self._due[key]
            return key
        return None


async def _wait(event: asyncio.Event, seconds: float | None) -> Any:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
