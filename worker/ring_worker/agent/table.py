"""Watch the file with the rank table, and hand on each new epoch once.

The file may not be there yet, be half written, be of another job (a namesake's, deleted a moment ago) or be older than
what runs: all of these are ignored, and each is said once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ring_worker.contract import ContractError, RankTable


class TableWatch:
    """`poll` gives the table of a newer epoch, or None. `after_epoch`: tables up to it are not for this pod."""

    def __init__(self, path: Path, job_uid: str, say: Callable[[str], None], after_epoch: int = 0) -> None:
        self._path = path
        self._job_uid = job_uid
        self._say = say
        self._after_epoch = after_epoch
        self._seen = ""

    def poll(self, epoch: int) -> RankTable | None:
        """The table in the file if it is of this job and newer than `epoch`."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        if text == self._seen:
            return None
        self._seen = text
        return self._judge(text, epoch)

    def _judge(self, text: str, epoch: int) -> RankTable | None:
        try:
            table = RankTable.from_json(text)
        except ContractError as error:
            self._say(f"ignoring {self._path}: {error}")
            return None
        if table.job_uid != self._job_uid:
            self._say(f"ignoring a rank table of another job: uid {table.job_uid}, this one is {self._job_uid}")
            return None
        if table.epoch <= self._after_epoch:
            self._say(f"ignoring the rank table of epoch {table.epoch}: this pod takes part after {self._after_epoch}")
            return None
        if table.epoch <= epoch:
            self._say(f"ignoring the rank table of epoch {table.epoch}: epoch {epoch} was run already")
            return None
        return table
