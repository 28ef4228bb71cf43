"""Make the README's pictures from a finished run: the live view two thirds through and the end, and the loss.

python docs/draw_run.py runs/quickstart
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path

from rich.console import Console

from ring_operator.cli.view.live import LiveView
from ring_operator.cli.view.summary import FolderHome
from ring_operator.local.events import Outcome, Started, Stepped
from ring_operator.local.folder import RunFolder
from ring_operator.local.machine import find_machines
from ring_operator.plan import plan
from ring_operator.spec import read_manifest
from ring_worker.contract import ExitCode, MetricsLine

IMAGES = Path(__file__).parent / "images"


def main(folder: Path) -> None:
    IMAGES.mkdir(exist_ok=True)
    shutil.copy(folder / "loss.png", IMAGES / "quickstart-loss.png")
    console = Console(record=True, width=130, file=io.StringIO(), force_terminal=False)
    job = read_manifest(folder / "manifest.yaml")[0]
    lines = [MetricsLine.from_json(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    view = LiveView(console)
    home = FolderHome(RunFolder(folder))
    view.begin(plan(job, find_machines(job.spec.workers.nodes, ())), home)
    view.tell(Started(1, 4, 0))
    for line in lines[: 2 * len(lines) // 3]:
        view.tell(Stepped(line))
    view.end()
    console.print()
    for line in lines:
        view.tell(Stepped(line))
    view.finish(Outcome(ExitCode.DONE, "done"), home)
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="make quickstart"), flags=re.DOTALL)
    (IMAGES / "quickstart-run.svg").write_text(svg)  # without fonts from afar


if __name__ == "__main__":
    main(Path(sys.argv[1]))
