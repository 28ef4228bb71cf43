"""`python -m ring_worker.data`: prepare the data of the job in $RING_CONFIG, before its ranks start.

Prints one line of what there is; errors are for people, and the exit code (`contract.ExitCode`) says whether another
try can help. SIGTERM and Ctrl-C end it with 143; the next start goes on with the shards that are finished.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

from ring_worker.contract import ENV_CONFIG, ContractError, ExitCode, RunConfig
from ring_worker.data.dataset import Dataset
from ring_worker.data.errors import DataConfigError, DataError
from ring_worker.data.prepare import prepare
from ring_worker.data.stored import DatasetInfo, read_info, skipped_file


class _TerminatedError(BaseException):
    """SIGTERM or SIGINT; not an Exception, so that nothing below takes it for a fault of its own."""


def main() -> int:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # in the preparing processes: threads of numpy that do nothing
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _terminate)
    try:
        _run(_read_config())
    except _TerminatedError:
        return ExitCode.TERMINATED
    except DataError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"preparing the data: {error}", file=sys.stderr)
        return ExitCode.INFRASTRUCTURE
    except Exception:  # a fault of this program
        traceback.print_exc()
        return ExitCode.APPLICATION
    return ExitCode.DONE


def _terminate(number: int, frame: object) -> None:
    raise _TerminatedError


def _read_config() -> RunConfig:
    path = os.environ.get(ENV_CONFIG)
    if not path:
        raise DataConfigError(f"{ENV_CONFIG} is not set: it must name the file with the job's RunConfig.")
    try:
        return RunConfig.from_json(Path(path).read_text())
    except (OSError, UnicodeDecodeError, ContractError) as error:
        raise DataConfigError(f"{path}: {error}") from None


def _run(config: RunConfig) -> None:
    folder = prepare(config.data)
    Dataset.open(config.data, config.context.length)  # is there enough of it?
    info = read_info(folder)
    print(_summary(info))
    if info.skipped:
        kinds = ", ".join(f"{kind.count} {kind.kind}" for kind in info.skipped)
        print(f"Skipped as spec.data.onError says: {kinds}; named in {skipped_file(folder)}", file=sys.stderr)


def _summary(info: DatasetInfo) -> str:
    training, held_out = info.training, info.heldout
    return (
        f"{training.documents + held_out.documents} documents: {training.tokens:,} tokens ({training.bytes:,} bytes) "
        f"to train on, {held_out.tokens:,} ({held_out.bytes:,} bytes in {held_out.documents} documents) held out"
    )


if __name__ == "__main__":
    sys.exit(main())
