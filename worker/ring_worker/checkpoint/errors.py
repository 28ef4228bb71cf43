"""What can go wrong with a checkpoint, by what helps: each error carries the exit code of the rank that meets it."""

from __future__ import annotations

from typing import ClassVar

from ring_worker.contract import ExitCode


class CheckpointError(Exception):
    """A checkpoint could not be written or read, though nothing is wrong with its content: a full disk, say."""

    exit_code: ClassVar[ExitCode] = ExitCode.INFRASTRUCTURE


class DamagedCheckpointError(CheckpointError):
    """A complete checkpoint is not what was written. No other one is taken in its place: a human must choose."""

    exit_code: ClassVar[ExitCode] = ExitCode.CORRUPT_DATA


class MismatchedCheckpointError(CheckpointError):
    """There is no such checkpoint, or it is of another model."""

    exit_code: ClassVar[ExitCode] = ExitCode.INVALID_CONFIG
