"""What all parts of the spec share: one base class, and the vocabulary of bounded types.

Every string, list and number is bounded, because the same models become the custom resource's schema, and because an
unbounded field is a way to hurt the API server. Values are strict, as the API server is: "100" is not 100. Patterns
name characters and no classes, since a space is not the same to Python and to the API server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A mapping of the manifest: camelCase outside, snake_case inside, unknown fields refused, never changed."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=False,
    )


def number_or_auto(least: int, most: int) -> Callable[[Any], Any]:
    """Validator of a field that is a whole number in `least..most` or the word auto; one error, not one a branch."""

    def check(value: Any) -> Any:
        if value == "auto" or (type(value) is int and least <= value <= most):
            return value
        raise PydanticCustomError(
            "number_or_auto",
            "{value} is neither a whole number from {least} to {most} nor auto",
            {"value": repr(value)[:60], "least": least, "most": most},
        )

    return check


_SMALL = 4096
_LARGEST = 2**31 - 1

# In schemas: a whole number or a string, the one union that the API server knows.
INT_OR_STRING = "x-kubernetes-int-or-string"

Degree = Annotated[
    int | Literal["auto"],
    BeforeValidator(number_or_auto(1, 65536)),
    Field(json_schema_extra={"minimum": 1, "maximum": 65536, INT_OR_STRING: True}),
]
PerNode = Annotated[
    int | Literal["auto"],
    BeforeValidator(number_or_auto(0, 64)),
    Field(json_schema_extra={"minimum": 0, "maximum": 64, INT_OR_STRING: True}),
]
Processes = Annotated[
    int | Literal["auto"],
    BeforeValidator(number_or_auto(1, 256)),
    Field(json_schema_extra={"minimum": 1, "maximum": 256, INT_OR_STRING: True}),
]

Count = Annotated[int, Field(ge=1, le=_LARGEST)]
CountOrNone = Annotated[int, Field(ge=0, le=_LARGEST)]  # 0 means: none, or off
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, le=_LARGEST)]

# Lists are kept as tuples; `Strict(False)` on a field lets a YAML list become one.
Line = Annotated[str, Field(min_length=1, max_length=_SMALL, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text = Annotated[str, Field(max_length=_SMALL, pattern=r"^[^\x00]*$")]
AbsolutePath = Annotated[str, Field(min_length=1, max_length=_SMALL, pattern=r"^/[^\x00-\x1f\x7f]*$")]
DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
DnsName = Annotated[str, Field(min_length=1, max_length=253, pattern=rf"^{_SUBDOMAIN}$")]
LabelKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=317,
        pattern=rf"^({_SUBDOMAIN}/)?[A-Za-z0-9]([-_.A-Za-z0-9]{{0,61}}[A-Za-z0-9])?$",
    ),
]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?)?$")]


def _written_as_number(value: Any) -> Any:
    """`cpu: 4` means "4", as it does everywhere in Kubernetes; 0.5 needs its quotes, since no schema can allow it."""
    return str(value) if type(value) is int and value < 2**63 else value


Quantity = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{1,2})?$",
        json_schema_extra={INT_OR_STRING: True},
    ),
    BeforeValidator(_written_as_number),
]
"""An amount as Kubernetes writes it: 4, 500m, 64Gi."""
