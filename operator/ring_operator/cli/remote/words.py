"""Figures of a job in words, and rows in columns, the same for `status` and `top`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.text import Text

from ring_operator.cli.view.progress import duration
from ring_operator.remote.objects import JobSeen
from ring_operator.status.document import Progress, Restarts, RingStatus

_STYLES = {
    "Running": "green",
    "Succeeded": "green",
    "Failed": "red",
    "Invalid": "red",
    "PrepareFailed": "red",
    "Suspended": "yellow",
    "Suspending": "yellow",
    "Restarting": "yellow",
    "Deleting": "yellow",
    "Terminating": "yellow",
}
_GAP = "  "
_NODES_SHOWN = 12
NOTHING = "-"


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[Text]:
    """Lines of a table; words that are states have their colour. No column is cut, however wide."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    return [_line(row, widths, "bold" if i == 0 else "") for i, row in enumerate(table)]


def _line(row: Sequence[str], widths: Sequence[int], style: str) -> Text:
    last = len(row) - 1
    cells = [
        (text if i == last else text.ljust(width), i) for i, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    parts = [(f"{text}{_GAP if i < last else ''}", style or _STYLES.get(text.strip(), "")) for text, i in cells]
    line = Text.assemble(*parts)
    line.rstrip()
    return line


def state(word: str) -> Text:
    return Text(word, f"bold {_STYLES.get(word, '')}".strip())


def ago(seconds: float) -> str:
    """Age of a moment as kubectl gives it: 45s, 12m, 5h, 3d; nothing for one that is not known."""
    if not seconds:
        return NOTHING
    age = max(0, int(time.time() - seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if age >= 2 * size:
            return f"{age // size}{unit}"
    return f"{age}s"


def steps(progress: Progress | None) -> str:
    if progress is None or progress.step < 0:
        return NOTHING
    return f"{progress.step:,}/{progress.total_steps:,}"


def left(progress: Progress) -> str:
    return f", {duration(progress.eta_seconds)} left" if progress.eta_seconds else ""


def number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def restarts(found: Restarts) -> str:
    """`3 (application 1, infrastructure 2)`."""
    kinds = [(n, getattr(found, n)) for n in ("application", "infrastructure")]
    of = ", ".join(f"{name} {count}" for name, count in kinds if count)
    return f"{found.total} ({of})" if of else str(found.total)


def ring_nodes(ring: RingStatus) -> str:
    """Nodes in ring order, back to the first; a long ring by its beginning."""
    nodes = ring.nodes
    if not nodes:
        return NOTHING
    if len(nodes) == 1:
        return nodes[0]
    if len(nodes) > _NODES_SHOWN:
        return f"{' > '.join(nodes[:_NODES_SHOWN])} > ... ({len(nodes)} nodes)"
    return " > ".join((*nodes, nodes[0]))


def job_rows(jobs: Iterable[JobSeen], everywhere: bool) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of jobs."""
    header = ["NAME", "STATE", "RINGS", "STEP", "LOSS", "TOKENS/S", "EFFICIENCY", "RESTARTS", "AGE"]
    rows = [_job_row(job) for job in jobs]
    if not everywhere:
        return header, rows
    return ["NAMESPACE", *header], [[job.namespace, *row] for job, row in zip(jobs, rows, strict=True)]


def _job_row(job: JobSeen) -> list[str]:
    status, progress = job.status, job.status.progress or Progress()
    return [
        job.name,
        job.state,
        status.rings_ready or NOTHING,
        steps(progress),
        number(progress.loss, ".3f"),
        number(progress.tokens_per_second, ",.0f"),
        number(progress.efficiency, ".2f"),
        str(status.restarts.total),
        ago(job.created),
    ]
