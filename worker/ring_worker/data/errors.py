"""What can be wrong with the data, by who must act: the configuration, the text, or the machine.

The type decides the exit code (`contract.ExitCode`); the message is complete, for people, and printed as it is.
"""

from __future__ import annotations

from ring_worker.contract import ExitCode


class DataError(Exception):
    """The message says what is wrong, with the numbers, and the way out."""

    exit_code = ExitCode.CORRUPT_DATA


class DataConfigError(DataError):
    """The job asks for what cannot be: a path that does not exist, a pattern that matches nothing, too little text."""

    exit_code = ExitCode.INVALID_CONFIG


class BadInputError(DataError):
    """Documents that cannot be used, under `onError: stop`; or prepared data that were damaged."""

    exit_code = ExitCode.CORRUPT_DATA


class PreparationDiedError(DataError):
    """A preparing process was killed from outside; what is finished is kept, and a new start goes on."""

    exit_code = ExitCode.INFRASTRUCTURE
