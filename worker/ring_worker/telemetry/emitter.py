"""The rank's end of the telemetry: one datagram a record to the agent of the pod, and training never waits for it.

A local datagram socket keeps whole records apart and costs a few microseconds: an agent that is away, late or full
costs a record and nothing else. What could not be sent is counted in `dropped`.
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace

from ring_worker.contract import MetricsLine
from ring_worker.telemetry.record import DATAGRAM_BYTES, Record


class Emitter:
    """Sends records to the datagram socket of this descriptor; with None (no agent) it does nothing with them."""

    def __init__(self, descriptor: str | None) -> None:
        self.dropped = 0
        self._socket = _inherited(descriptor) if descriptor else None

    def send(self, record: Record) -> None:
        """One datagram; never blocks, never raises. A record with NaN, which JSON cannot say, is dropped too."""
        if self._socket is None:
            return
        try:
            datagram = record.to_json().encode()
            if len(datagram) > DATAGRAM_BYTES:
                raise ValueError("too long for the reader")
            self._socket.send(datagram)
        except (OSError, ValueError):
            self.dropped += 1

    def send_line(self, line: MetricsLine) -> None:
        """As `send`; a line of more rings than one datagram holds goes without them."""
        before = self.dropped
        self.send(line)
        if self.dropped > before and line.rings:
            self.dropped = before
            self.send(replace(line, rings=()))

    def close(self) -> None:
        if self._socket:
            self._socket.close()


def _inherited(descriptor: str) -> socket.socket | None:
    """A descriptor that is no socket is one of somebody else's: training goes on without telemetry."""
    try:
        inherited = socket.socket(fileno=os.dup(int(descriptor)))
    except (OSError, ValueError):
        return None
    inherited.setblocking(False)
    return inherited
