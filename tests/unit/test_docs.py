"""The documentation says what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ring_operator.cli.main import ON_A_CLUSTER, ON_THIS_MACHINE
from ring_operator.cli.remote.options import Exit
from ring_operator.errors import UserError
from ring_operator.remote import NotFoundError, RefusedError, UnreachableError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_drawing_of_the_layers_is_that_of_the_contracts() -> None:
    checked = subprocess.run([sys.executable, ROOT / "docs" / "layers.py", "--check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`(ring_(?:worker|operator)(?:\.\w+)+)`", page.read_text()):
        root = ROOT / ("worker" if name.startswith("ring_worker") else "operator")
        places = [root.joinpath(*name.split(".")[:n]) for n in range(2, len(name.split(".")) + 1)]
        assert any(p.is_dir() or p.with_suffix(".py").is_file() for p in places), f"{page}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"`make ([a-z-]+)`", page.read_text()):
        assert target in targets, f"{page}: make {target}"


def test_the_page_of_ringctl_has_every_command_and_option_and_exit_code() -> None:
    page = (ROOT / "docs" / "ringctl.md").read_text()
    for command in (*ON_THIS_MACHINE, *ON_A_CLUSTER):
        assert f"`ringctl {command.__name__}" in page
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert codes == {2, *map(int, Exit)}
    assert {error.exit_code for error in (UserError, RefusedError, NotFoundError, UnreachableError)} <= codes
