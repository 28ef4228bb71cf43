"""Draw the layers of both programs into docs/architecture.md, from the import contracts that `make layers` checks.

python docs/layers.py            # rewrite the drawing
python docs/layers.py --check    # exit 1 if it is not what the contracts say
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- layers: drawn by docs/layers.py -->\n", "<!-- end of layers -->\n"
WIDTH = 62


def drawing() -> str:
    """A code block: each layer may import from those below it and not from its neighbours."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = [contract for contract in contracts if contract["type"] == "layers"]
    return "```\n" + "\n".join(_tower(contract) for contract in layered) + "```\n"


def _tower(contract: dict[str, list[str]]) -> str:
    rows = [contract["containers"][0]]
    for layer in contract["layers"]:
        rooms = [room.strip() for room in layer.split("|")]
        built = [room for room in rooms if not room.startswith("(")]
        if built:
            rows += ["  +" + "-" * WIDTH + "+", "  |" + "   ".join(built).center(WIDTH) + "|"]
    return "\n".join([*rows, "  +" + "-" * WIDTH + "+", ""])


def drawn_into(page: str) -> str:
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + drawing() + END + after


def main() -> int:
    page = PAGE.read_text()
    fresh = drawn_into(page)
    if "--check" in sys.argv:
        if page != fresh:
            print(f"{PAGE.relative_to(ROOT)} is older than pyproject.toml. Run: python docs/layers.py")
        return int(page != fresh)
    PAGE.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
