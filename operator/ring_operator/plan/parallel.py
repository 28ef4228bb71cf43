"""The plan itself: degrees turned into ranks and rings, and said aloud where a number will surprise.

Ranks are ordered slowest to fastest `pipeline, data, context, tensor`: tensor neighbours are next to each other, rings
follow over the closest links, data is outermost but for the pipeline. So rank = ((p x data + d) x context + c) x tensor
+ t, and ring (p, d, t) is the ranks with all c in order. With ulysses, c = place x ulysses + member: the members that
share a place of the ring, and split its heads among them, are next to each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ring_operator.errors import refuse
from ring_operator.plan.degrees import degrees_for
from ring_operator.plan.machines import Machines, Ranks, ranks_on
from ring_operator.plan.work import Work, work_of
from ring_operator.spec import JobSpec, TrainingJob
from ring_worker.contract import Degrees

# Above this many tokens a rank, what attention's neighbours keep for the backward pass outgrows what it costs to
# compute them again: 12 h + 6 f numbers a token and layer are kept, against a third of the forward's linear work.
RECOMPUTE_ABOVE_TOKENS = 16384


@dataclass(frozen=True, slots=True)
class Ring:
    """Ranks that share a sequence, in ring order: each passes its keys and values to the next, the last to the first.

    With ulysses, so many ranks in turn share a place, and each passes them to its like at the next place.
    """

    index: int
    pipeline: int
    data: int
    tensor: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ParallelPlan:
    """How a job is spread. `length` in tokens; `batch` in sequences of it, over all data ranks, in a step.

    `threads`: CPU threads of a rank. `recompute`: none | attention | output | late | full. `notes`: what a person
    should know.
    """

    job: str
    device: str
    nodes: int
    ranks_per_node: int
    threads: int
    degrees: Degrees
    layout: str
    length: int
    batch: int
    steps: int
    recompute: str
    rings: tuple[Ring, ...]
    work: Work
    notes: tuple[str, ...]

    @property
    def world_size(self) -> int:
        return self.degrees.world_size

    @property
    def tokens_per_rank(self) -> int:
        """Of one sequence; the most that a rank holds, where the length does not divide."""
        return -(-self.length // self.degrees.context)

    @property
    def accumulation(self) -> int:
        """Sequences that a data rank takes one after the other in a step."""
        return self.batch // self.degrees.data

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.length

    @property
    def tokens(self) -> int:
        """Of the whole training."""
        return self.steps * self.tokens_per_step

    def ring_of(self, rank: int) -> tuple[int, int]:
        """Index of the rank's ring, and the rank's position in it."""
        rest, tensor = divmod(rank, self.degrees.tensor)
        group, position = divmod(rest, self.degrees.context)
        return group * self.degrees.tensor + tensor, position

    def ranks_of(self, node: int) -> range:
        """Ranks of the node that is given the `node`-th place."""
        return range(node * self.ranks_per_node, (node + 1) * self.ranks_per_node)

    def nodes_of(self, ring: Ring, order: Sequence[str]) -> tuple[str, ...]:
        """In ring order; neighbours on the same node are one entry. `order`: the nodes by the place they are given."""
        return tuple(order[place] for place, _ in groupby(rank // self.ranks_per_node for rank in ring.ranks))


def plan(job: TrainingJob, machines: Machines) -> ParallelPlan:
    """Plan a job on machines. Raises UserError with the sum and the way out.

    What is not built yet is planned like the rest: `spec.unsupported` refuses to run it.
    """
    spec = job.spec
    if spec.model.hf is not None:
        raise refuse(
            "spec.model.hf", "the shape of a Hugging Face model is not known here", "Take preset or architecture."
        )
    ranks = ranks_on(spec, machines)
    degrees = degrees_for(spec, ranks)
    _check_even(degrees, ranks)
    tokens_per_rank = -(-spec.context.length // degrees.context)
    return ParallelPlan(
        job=job.name,
        device=ranks.device,
        nodes=ranks.nodes,
        ranks_per_node=ranks.per_node,
        threads=ranks.threads,
        degrees=degrees,
        layout=spec.context.layout,
        length=spec.context.length,
        batch=spec.training.batch,
        steps=spec.training.steps,
        recompute=_recompute(spec, tokens_per_rank),
        rings=rings_of(degrees),
        work=work_of(spec, degrees),
        notes=tuple(_notes(spec, machines, ranks, tokens_per_rank)),
    )


def _check_even(degrees: Degrees, ranks: Ranks) -> None:
    """A group of rings has whole nodes, or a node whole groups: NCCL can deadlock where hosts have uneven shares."""
    group, per_node = degrees.context * degrees.tensor, ranks.per_node
    if ranks.nodes == 1 or group % per_node == 0 or per_node % group == 0:
        return
    noun = "GPUs" if ranks.device == "cuda" else "processes"
    whole = " or ".join(str(n) for n in (group // per_node * per_node, -(-group // per_node) * per_node) if n)
    raise refuse(
        "spec.parallelism.context",
        f"context {degrees.context} x tensor {degrees.tensor} = {group} ranks share a sequence, which {per_node} "
        f"{noun} a node do not divide: nodes would have uneven shares of rings",
        f"Take context x tensor of {whole}, or a divisor of {per_node}.",
    )


def rings_of(degrees: Degrees) -> tuple[Ring, ...]:
    """One ring for each (pipeline, data, tensor), in that order."""
    return tuple(
        Ring(
            index=(p * degrees.data + d) * degrees.tensor + t,
            pipeline=p,
            data=d,
            tensor=t,
            ranks=tuple(
                ((p * degrees.data + d) * degrees.context + c) * degrees.tensor + t for c in range(degrees.context)
            ),
        )
        for p in range(degrees.pipeline)
        for d in range(degrees.data)
        for t in range(degrees.tensor)
    )


def _recompute(spec: JobSpec, tokens_per_rank: int) -> str:
    if spec.training.recompute != "auto":
        return spec.training.recompute
    return "attention" if tokens_per_rank > RECOMPUTE_ABOVE_TOKENS else "none"


def _notes(spec: JobSpec, machines: Machines, ranks: Ranks, tokens_per_rank: int) -> Iterator[str]:
    if spec.training.recompute == "auto" and tokens_per_rank > RECOMPUTE_ABOVE_TOKENS:
        yield f"recompute auto became attention: a rank holds more than {RECOMPUTE_ABOVE_TOKENS:,} tokens of a sequence"
    if tokens_per_rank < ranks.least_tokens and tokens_per_rank < spec.context.length:
        yield (f"{tokens_per_rank:,} tokens a rank are few: below {ranks.least_tokens:,} a ring mostly waits")
    if machines.cpus_per_node is not None and ranks.device == "cpu" and ranks.per_node > machines.cpus_per_node:
        yield f"{ranks.per_node} processes share {machines.cpus_per_node} CPU cores of a node"
    for kind, reach in (("window", spec.model.attention.window), ("chunk", spec.model.attention.chunk)):
        if kind in spec.model.attention.pattern and reach >= spec.context.length:
            yield f"{kind} {reach:,} covers all {spec.context.length:,} tokens: its layers are full layers"


def document(plan: ParallelPlan) -> dict[str, Any]:
    """The plan as plain values with the manifest's spelling, for programs."""
    degrees, work = plan.degrees, plan.work
    return {
        "job": plan.job,
        "device": plan.device,
        "nodes": plan.nodes,
        "ranksPerNode": plan.ranks_per_node,
        "worldSize": plan.world_size,
        "threadsPerRank": plan.threads,
        "degrees": {name: getattr(degrees, name) for name in ("data", "pipeline", "context", "tensor", "ulysses")}
        | {"innerRing": degrees.inner_ring},
        "layout": plan.layout,
        "contextLength": plan.length,
        "tokensPerRank": plan.tokens_per_rank,
        "batch": plan.batch,
        "accumulation": plan.accumulation,
        "tokensPerStep": plan.tokens_per_step,
        "steps": plan.steps,
        "tokens": plan.tokens,
        "recompute": plan.recompute,
        "weights": work.weights,
        "flopsPerStep": work.flops,
        "attentionShare": work.attention_flops / work.flops,
        "ringBlockBytes": work.block_bytes,
        "layers": [
            {
                "kind": g.kind,
                "count": g.count,
                "reach": g.reach,
                "globalTokens": g.global_tokens,
                "pairsPerSequence": g.pairs,
            }
            for g in work.layers
        ],
        "rings": [
            {"index": r.index, "pipeline": r.pipeline, "data": r.data, "tensor": r.tensor, "ranks": list(r.ranks)}
            for r in plan.rings
        ],
        "notes": list(plan.notes),
    }
