"""docs/attention-support.md says what the code does: every cell is computed again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_support_table_is_what_the_code_does() -> None:
    command = [sys.executable, ROOT / "docs" / "support.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert checked.returncode == 0, checked.stdout + checked.stderr
