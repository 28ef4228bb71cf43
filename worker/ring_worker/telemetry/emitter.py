"""The rank's end of the telemetry: one datagram a record to the agent of the pod, and training never waits for it.

A local datagram socket keeps whole records apart, costs a few microseconds and needs no connection: an agent that is
away, late or full costs a record and nothing else. What could not be sent is counted in `dropped`.
"""

from __future__ import annotations

import socket

from ring_worker.telemetry.record import AliveRecord, CheckpointRecord, StepRecord


class Emitter:
    """Sends records to the datagram socket at `path`; with None (no agent) it takes them and does nothing."""

    def __init__(self, path: str | None) -> None:
        self.dropped = 0
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if path else None
        if self._socket:
            self._socket.setblocking(False)

    def send(self, record: StepRecord | CheckpointRecord | AliveRecord) -> None:
        """One datagram; never blocks, never raises. A record with NaN, which JSON cannot say, is dropped too."""
        if self._socket is None or self._path is None:
            return
        try:
            self._socket.sendto(record.to_json().encode(), self._path)
        except (OSError, ValueError):
            self.dropped += 1

    def close(self) -> None:
        if self._socket:
            self._socket.close()
