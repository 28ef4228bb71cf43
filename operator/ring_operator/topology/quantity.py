"""Quantities as Kubernetes writes them (`100m`, `64Gi`, `1.5`, `2e3`) -> whole numbers of billionths, exactly.

Billionths, since that is the finest that Kubernetes keeps: sums and comparisons are of integers, and nothing is rounded
on the way. What is finer is rounded up, as there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ring_operator.raw import mapping

Amounts = Mapping[str, int]  # resource -> billionths
UNIT = 10**9  # billionths in one
_MOST = (2**63 - 1) * UNIT  # Kubernetes caps at this
_FORM = re.compile(r"([+-]?)([0-9]{0,40})(?:\.([0-9]{0,40}))?(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,4}))?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def quantity(value: Any) -> int | None:
    """Billionths; None for what is no quantity. Numbers that YAML read as such are taken as they are written."""
    if type(value) is str:
        return _parsed(value)
    return _parsed(str(value)) if type(value) in (int, float) else None


def amounts(raw: Any, key: str) -> dict[str, int]:
    """The quantities under a key of an object; what is none is left out."""
    found = mapping(raw, key)
    return {name: amount for name, value in found.items() if (amount := quantity(value)) is not None} if found else {}


@lru_cache(maxsize=65536)
def _parsed(text: str) -> int | None:
    found = _FORM.fullmatch(text)
    if found is None or not (found[2] or found[3]):
        return None
    sign, whole, part, suffix, exponent = found.groups(default="")
    digits = int(whole + part)
    power = 9 - len(part) + (int(exponent) if exponent else _DECIMAL.get(suffix, 0))
    amount = _scaled(digits << _BINARY.get(suffix, 0), power)
    return -min(amount, _MOST) if sign == "-" else min(amount, _MOST)


def _scaled(digits: int, power: int) -> int:
    """digits x 10^power, rounded up."""
    if power >= 0:
        return digits * int(10 ** min(power, 60))
    return -(-digits // int(10 ** min(-power, 200)))


def plain(billionths: int) -> str:
    """For people: `12`, `0.5`; bytes beyond 1 GiB as `64Gi`."""
    if billionths >= 2**30 * UNIT:
        return f"{billionths / (2**30 * UNIT):.4g}Gi"
    return f"{billionths / UNIT:.4g}"
