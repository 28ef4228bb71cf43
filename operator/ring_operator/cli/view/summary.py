"""What came of a run on this machine, in a few lines: from report.json at the end, or why there is none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ring_operator.cli.view.progress import duration
from ring_operator.local.events import Outcome
from ring_operator.local.folder import CHECKPOINTS, METRICS, PICTURE, REPORT, RunFolder
from ring_worker.contract import ExitCode

_ERROR_LINES = 15
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class FolderHome:
    """A run folder as the `Home` of a run."""

    kind = "folder"

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        return short(self._folder.path)

    def place(self) -> dict[str, Any]:
        return {"folder": str(self._folder.path)}

    def checkpoint_step(self) -> int | None:
        return self._folder.last_checkpoint()

    def report(self) -> dict[str, Any] | None:
        return read_report(self._folder)

    def print_outcome(self, console: Console, outcome: Outcome) -> None:
        if outcome.exit_code == ExitCode.DONE:
            _print_done(console, self._folder)
        elif outcome.exit_code == ExitCode.TERMINATED:
            _print_stopped(console, outcome, self._folder)
        else:
            _print_failed(console, outcome)


def read_report(folder: RunFolder) -> dict[str, Any] | None:
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def short(path: Path) -> str:
    """Relative to the current folder where it lies in it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def printable(text: str) -> str:
    """Text of a model or of a file as it is, but for characters that would steer the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _print_done(console: Console, folder: RunFolder) -> None:
    report = read_report(folder)
    if report is None:
        console.print(Text.assemble(("Done", "bold green"), f", but {short(folder / REPORT)} cannot be read."))
        return
    console.print(Text.assemble(("Done: ", "bold green"), _headline(report)), soft_wrap=True)
    for label, value in _rows(report, folder):
        console.print(Text.assemble((f"  {label:<12}", "dim"), value), soft_wrap=True)
    if report.get("sample"):
        console.print(Text("A sample of what the model writes, as it is:", "dim"))
        console.print(Text(printable(report.get("sample_prompt", "") + report["sample"])), soft_wrap=True)


def _headline(report: Mapping[str, Any]) -> str:
    restarts = report["restarts"]
    again = f", {restarts} restart{'s' if restarts != 1 else ''}" if restarts else ""
    return (
        f"{report['steps']:,} steps, {report['tokens']:,} tokens in {duration(report['seconds'])} "
        f"({report['tokens_per_second']:,.0f} tokens/s){again}"
    )


def _rows(report: Mapping[str, Any], folder: RunFolder) -> Iterator[tuple[str, str]]:
    if (held_out := report.get("heldout_bits_per_byte")) is not None:
        rivals = [(n, report.get(f"{n}_bits_per_byte")) for n in ("bigram", "unigram")]
        known = ", ".join(f"{name} {bits:.2f}" for name, bits in rivals if bits is not None)
        yield "held out", f"{held_out:.2f} bits per byte" + (f" ({known})" if known else "")
    for ring in report.get("ring", ()):
        if ring["efficiency"] is not None:
            yield f"ring {ring['index']}", _ring(ring)
    yield "files", ", ".join(short(folder / name) for name in (REPORT, PICTURE, METRICS, CHECKPOINTS))


def _ring(ring: Mapping[str, Any]) -> str:
    parts = [f"efficiency {ring['efficiency']:.2f}"]
    if ring["hidden_ratio"] is not None:
        parts.append(f"{ring['hidden_ratio']:.0%} of the transfers hidden")
    if ring["exposed_fraction"] is not None:
        parts.append(f"{ring['exposed_fraction']:.1%} of the time waiting")
    return ", ".join([*parts, f"{ring['bytes'] / 2**20:,.0f} MiB sent"])


def _print_stopped(console: Console, outcome: Outcome, folder: RunFolder) -> None:
    saved = folder.last_checkpoint()
    console.print(
        Text.assemble(("Stopped", "bold yellow"), f": {outcome.message}. {folder.describe()}."), soft_wrap=True
    )
    console.print(f"  {_how_to_go_on(folder, saved)}", soft_wrap=True)


def _how_to_go_on(folder: RunFolder, saved: int | None) -> str:
    if saved is not None:
        return f"Go on with --resume, from step {saved}."
    if folder.began:
        return "There is nothing to go on from; start over with the same command and --overwrite."
    return "Nothing was begun; start again with the same command."


def _print_failed(console: Console, outcome: Outcome) -> None:
    console.print(Text.assemble(("Failed: ", "bold red"), outcome.message), soft_wrap=True)
    if outcome.failure and outcome.failure.error:
        for line in outcome.failure.error.splitlines()[-_ERROR_LINES:]:
            console.print(Text(f"  | {printable(line)}"), soft_wrap=True)
    if outcome.log:
        console.print(f"  The whole log: {short(Path(outcome.log))}", soft_wrap=True)
