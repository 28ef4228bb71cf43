"""Degrees: numbers as they are given, `auto` filled in, or a refusal that does the sum.

`auto` is 1 for tensor and pipeline. Data and context share what these leave: where one is given the other is the rest.
Where both are open, context comes first, because long sequences are what this program is for and only context makes
them fit; but a ring hides a transfer of KV blocks behind attention over them, and both shrink with the tokens a rank
holds, the attention with their square. So the ring grows while each rank keeps `Ranks.least_tokens` (1,024 on a CPU,
where a step of the loop costs about a millisecond of Python and sockets; 4,096 on a GPU, where kernels below that
leave most of it idle), and data gets the rest, as far as the batch divides.
"""

from __future__ import annotations

import math

from ring_operator.errors import Fault, UserError
from ring_operator.plan.machines import Ranks, fixed_product
from ring_operator.spec import Context, JobSpec, Parallelism
from ring_worker.contract import Degrees

_ORDER = ("data", "pipeline", "context", "tensor")


def degrees_for(spec: JobSpec, ranks: Ranks) -> Degrees:
    """Degrees whose product is the number of ranks. Raises UserError with every fault."""
    parallelism = spec.parallelism
    fixed, open_ended = fixed_product(parallelism)
    if ranks.total % fixed or (not open_ended and ranks.total != fixed):
        raise UserError([_wrong_product(parallelism, ranks, fixed, open_ended)])
    data, context = _data_and_context(spec, ranks, ranks.total // fixed)
    degrees = Degrees(
        data=data,
        pipeline=_number(parallelism.pipeline),
        context=context,
        tensor=_number(parallelism.tensor),
        ulysses=parallelism.ulysses,
        inner_ring=parallelism.inner_ring,
    )
    if faults := [*_batch_fits(spec, degrees), *_sequence_fits(spec.context, degrees), *_ring_fits(degrees)]:
        raise UserError(faults)
    return degrees


def _number(degree: int | str) -> int:
    return degree if isinstance(degree, int) else 1


def _data_and_context(spec: JobSpec, ranks: Ranks, rest: int) -> tuple[int, int]:
    """`rest`: ranks that the degrees given as numbers leave over for those that are open."""
    data, context = spec.parallelism.data, spec.parallelism.context
    if data == "auto" and context == "auto":
        context = _longest_useful_ring(spec, ranks, rest)
        return rest // context, context
    if data == "auto":
        return rest, _number(context)
    return data, rest if context == "auto" else context


def _longest_useful_ring(spec: JobSpec, ranks: Ranks, rest: int) -> int:
    """The largest context degree that feeds its ranks; else the smallest with which the batch divides."""
    unit = spec.parallelism.ulysses * (spec.parallelism.inner_ring or 1)
    possible = [
        c for c in range(1, rest + 1) if rest % c == 0 and c % unit == 0 and spec.training.batch % (rest // c) == 0
    ]
    useful = [c for c in possible if spec.context.length // c >= ranks.least_tokens]
    return max(useful, default=min(possible, default=rest))


def _wrong_product(parallelism: Parallelism, ranks: Ranks, fixed: int, open_ended: bool) -> Fault:
    given = {name: degree for name in _ORDER if isinstance(degree := getattr(parallelism, name), int)}
    factors = [f"{name} {degree}" for name, degree in given.items() if degree > 1] or ["every degree 1"]
    largest = max(given, key=lambda name: given[name])
    unit = "GPUs" if ranks.device == "cuda" else "processes"
    scope = " for each replica" if open_ended and parallelism.data == "auto" else ""
    odd = f", which {fixed} does not divide" if open_ended and fixed < ranks.total else ""
    message = f"{' x '.join(factors)} = {fixed} {unit}{scope}, but workers has {ranks}{odd}"
    return Fault(f"spec.parallelism.{largest}", message, _way_out(given, largest, ranks, fixed, open_ended))


def _way_out(given: dict[str, int], largest: str, ranks: Ranks, fixed: int, open_ended: bool) -> str:
    ways = []
    others = fixed // given[largest]
    if ranks.total % others == 0 and ranks.total // others >= 1:
        verb = "Lower" if ranks.total // others < given[largest] else "Raise"
        ways.append(f"{verb} {largest} to {ranks.total // others}")
    nodes = math.lcm(fixed, ranks.per_node) // ranks.per_node if open_ended else fixed / ranks.per_node
    if nodes == int(nodes):
        verb = "raise" if nodes > ranks.nodes else "lower"
        ways.append(f"{verb} workers.nodes to {int(nodes)}")
    if ranks.device == "cpu" and fixed % ranks.nodes == 0:
        ways.append(f"set workers.processesPerNode to {fixed // ranks.nodes}")
    text = ", or ".join(ways or ["Choose degrees whose product is the number of ranks"])
    return f"{text[0].upper()}{text[1:]}."


def _batch_fits(spec: JobSpec, degrees: Degrees) -> list[Fault]:
    batch, data = spec.training.batch, degrees.data
    if batch % data == 0:
        return []
    lower = max(d for d in range(1, data + 1) if batch % d == 0 and data % d == 0)
    return [
        Fault(
            "spec.training.batch",
            f"{batch} sequences cannot be dealt out evenly to data {data}",
            f"Take batch {-(-batch // data) * data}, or data {lower} with context {degrees.context * data // lower}.",
        )
    ]


def _sequence_fits(context: Context, degrees: Degrees) -> list[Fault]:
    """Every rank needs a part: two with zigzag, which cuts each rank an early and a late piece.

    Ranks that split heads share one part, of which each holds a token at least.
    """
    piece = max({"zigzag": 2, "striped": context.stripe, "contiguous": 1}[context.layout], degrees.ulysses)
    positions = degrees.context // degrees.ulysses
    if context.length >= piece * positions:
        return []
    message = (
        f"{context.length:,} tokens over context {degrees.context} leave ranks of the {context.layout} layout empty:"
        f" it needs {piece} x {positions} = {piece * positions:,}"
    )
    most = max(1, context.length // piece) * degrees.ulysses
    return [Fault("spec.context.length", message, f"Raise it, or lower parallelism.context to {most} or less.")]


def _ring_fits(degrees: Degrees) -> list[Fault]:
    """What the rules of the manifest could not tell while context was auto."""
    context, ulysses, inner = degrees.context, degrees.ulysses, degrees.inner_ring
    if context % ulysses:
        message = f"{ulysses} does not divide context {context}"
        return [Fault("spec.parallelism.ulysses", message, "Take a divisor of context.")]
    if inner is not None and degrees.ring % inner:
        message = f"{inner} does not divide the ring, context {context} / ulysses {ulysses} = {degrees.ring}"
        return [Fault("spec.parallelism.innerRing", message, "Take a divisor of it, or leave it out.")]
    return []
