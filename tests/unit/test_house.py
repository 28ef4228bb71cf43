"""The house itself: what no linter sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_nothing_shadows_the_standard_librarys_operator():
    """`operator/` is a source root. As a package, even an empty one, it breaks `import collections` from here."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "operator.py").exists()
    assert not (ROOT / "worker" / "__init__.py").exists()
    code = "import collections, operator; assert operator.add(1, 2) == 3"
    subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True, timeout=60)


def test_tests_are_no_package_and_no_folder_of_theirs_is_called_operator():
    assert [str(p) for p in (ROOT / "tests").rglob("__init__.py")] == []
    assert [str(p) for p in (ROOT / "tests").rglob("operator") if p.is_dir()] == []


def test_test_files_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


def test_the_core_and_the_agent_start_without_torch():
    code = (
        "import sys, ring_operator.cli, ring_operator.render, ring_worker.agent, ring_worker.contract\n"
        "assert not {'torch', 'triton', 'numpy', 'kopf', 'kubernetes'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
