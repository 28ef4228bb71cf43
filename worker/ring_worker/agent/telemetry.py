"""The pod's datagram socket, to which its ranks send what they measured.

A datagram is sent or lost, and never blocks a rank. Each epoch has a socket of its own, so that a last word of a killed
rank cannot be taken for progress of the next.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

_LONGEST_FOLDER = 80  # bytes; the kernel takes paths of 107 for a socket
_DATAGRAM_BYTES = 65536
_LOOK_SECONDS = 0.05


class TelemetrySocket:
    """Feeds each datagram to `feed`, in a thread of its own, from `open` to `close`."""

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self._feed = feed
        folder = tempfile.gettempdir()
        self._folder = Path(tempfile.mkdtemp(prefix="ring-", dir=folder if len(folder) < _LONGEST_FOLDER else "/tmp"))
        self.path = str(self._folder / "telemetry")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(_LOOK_SECONDS)
        self._closing = False
        self._thread = threading.Thread(target=self._receive, name="telemetry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(_DATAGRAM_BYTES)
            except TimeoutError:
                if self._closing:  # only when nothing is left to read
                    return
                continue
            self._feed(datagram)
