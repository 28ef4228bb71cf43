"""What ends a rank on purpose: each error carries its exit code, and is shown as its message alone."""

from __future__ import annotations

from typing import ClassVar

from ring_worker.contract import ExitCode


class ConfigError(Exception):
    """The manifest asks for what the data or the machine cannot give. No retry helps."""

    exit_code: ClassVar[ExitCode] = ExitCode.INVALID_CONFIG


class DivergedError(Exception):
    """The loss or the gradients are no numbers any more."""

    exit_code: ClassVar[ExitCode] = ExitCode.NO_RESTART
