"""The pod's datagram socket, to which its ranks send what they measured.

A datagram is sent or lost, and never blocks a rank. Each epoch has a socket of its own, so that a last word of a killed
rank cannot be taken for progress of the next. It is a pair without a name, whose other end the ranks inherit: nobody
else can write to it, and nothing of it is left on the disk however the agent ends.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from ring_worker.telemetry.record import DATAGRAM_BYTES

_LOOK_SECONDS = 0.05


class TelemetrySocket:
    """Feeds each datagram to `feed`, in a thread of its own, until `close`. `descriptor`: of the end for ranks."""

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self._feed = feed
        self._socket, self._ranks_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.descriptor = self._ranks_end.fileno()
        self._socket.settimeout(_LOOK_SECONDS)
        self._closing = False
        self._thread = threading.Thread(target=self._receive, name="telemetry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._socket.close()
        self._ranks_end.close()

    def _receive(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(DATAGRAM_BYTES)
            except TimeoutError:
                if self._closing:  # only when nothing is left to read
                    return
                continue
            self._feed(datagram)
