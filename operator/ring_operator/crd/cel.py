"""One rule in CEL, the language in which the API server checks what a schema cannot say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Rule:
    """`at`: path of the field that the rule calls `self`, with [] for each entry of a list; empty: the object itself.

    `holds`: what must be true. `says`: an expression of the message with its numbers; `message` stands in for it.
    `field`: of `self`, the one that is to blame. `forbidden`: the value is not wrong, but its change is.
    """

    holds: str
    message: str
    at: str = ""
    says: str = ""
    field: str = ""
    forbidden: bool = False

    def as_validation(self) -> dict[str, Any]:
        """An entry of x-kubernetes-validations."""
        return {
            "rule": self.holds,
            "message": self.message,
            **({"messageExpression": self.says} if self.says else {}),
            **({"fieldPath": self.field} if self.field else {}),
            **({"reason": "FieldValueForbidden"} if self.forbidden else {}),
        }


def quoted(text: str) -> str:
    """A string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def told(template: str, *values: str) -> str:
    """An expression of a message: each %s stands for the value of an expression.

    Adding strings up instead costs more than a rule may: the API server knows no bound of a number's length.
    """
    return f"{quoted(template)}.format([{', '.join(values)}])"


def any_of(words: tuple[str, ...]) -> str:
    """A list literal of strings."""
    return f"[{', '.join(map(quoted, words))}]"
