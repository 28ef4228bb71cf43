"""What there is to run on, and how many ranks that makes.

GPUs carry one rank each. Without GPUs a node carries as many processes as the manifest says; where it says auto, as
many as the degrees ask for, else one a CPU core, but no more than the sequences can feed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ring_operator.errors import Fault, UserError, refuse
from ring_operator.spec import JobSpec, Parallelism, Workers

LEAST_TOKENS_CPU = 1024
LEAST_TOKENS_GPU = 4096


@dataclass(frozen=True, slots=True)
class Machines:
    """Nodes that are alike. None: not known. Where several nodes are played by one machine, each has its share."""

    nodes: int
    gpus_per_node: int | None = None
    cpus_per_node: int | None = None


@dataclass(frozen=True, slots=True)
class Ranks:
    """`device`: cuda, one rank a GPU, or cpu. `threads`: CPU threads of a rank."""

    device: str
    nodes: int
    per_node: int
    threads: int

    @property
    def total(self) -> int:
        return self.nodes * self.per_node

    @property
    def least_tokens(self) -> int:
        """Tokens of a sequence below which one more rank in the ring is waste; see `degrees`."""
        return LEAST_TOKENS_GPU if self.device == "cuda" else LEAST_TOKENS_CPU

    def __str__(self) -> str:
        noun = "GPU" if self.device == "cuda" else "process"
        many = noun + ("s" if noun == "GPU" else "es") if self.per_node != 1 else noun
        return f"{self.nodes} node{'s' if self.nodes != 1 else ''} x {self.per_node} {many} = {self.total}"


def machines_of(spec: JobSpec, gpus_per_node: int | None = None) -> Machines:
    """The machines that a manifest itself asks for; `gpus_per_node` where it says auto."""
    gpus = spec.workers.gpus_per_node
    return Machines(
        nodes=spec.workers.nodes,
        gpus_per_node=gpus_per_node if gpus == "auto" else gpus,
        cpus_per_node=_cpus(spec.workers),
    )


def _cpus(workers: Workers) -> int | None:
    """Whole cores that a pod may use, by its limit or else its request."""
    text = workers.resources.limits.get("cpu") or workers.resources.requests.get("cpu")
    if text is None:
        return None
    try:
        cores = float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        return None
    return max(1, int(cores))


def ranks_on(spec: JobSpec, machines: Machines) -> Ranks:
    """Raises UserError where the machines have less than the manifest asks for, or nobody knows what they have."""
    workers = spec.workers
    if workers.nodes > machines.nodes:
        raise refuse(
            "spec.workers.nodes",
            f"{workers.nodes} nodes, but there are {machines.nodes}",
            f"Lower it to {machines.nodes}.",
        )
    gpus = _gpus(workers, machines)
    per_node = gpus or _processes(spec, machines)
    threads = max(1, (machines.cpus_per_node or 1) // per_node)
    return Ranks("cuda" if gpus else "cpu", workers.nodes, per_node, min(threads, 8) if gpus else threads)


def _gpus(workers: Workers, machines: Machines) -> int:
    asked, there = workers.gpus_per_node, machines.gpus_per_node
    if asked == "auto" and there is None:
        raise refuse(
            "spec.workers.gpusPerNode",
            "auto, but what the nodes have is not known here",
            "Give a number: in the manifest, by --set workers.gpusPerNode=8, or by --gpus-per-node 8.",
        )
    if asked == "auto":
        return there or 0
    if there is not None and asked > there:
        raise refuse(
            "spec.workers.gpusPerNode",
            f"{asked} GPUs on each node, but there are {there}",
            f"Lower it to {there}, or take auto." if there else "Set it to 0 to compute on the CPU, or take auto.",
        )
    return asked


def _processes(spec: JobSpec, machines: Machines) -> int:
    asked = spec.workers.processes_per_node
    if asked != "auto":
        return asked
    fixed, open_ended = fixed_product(spec.parallelism)
    unit = fixed // math.gcd(fixed, spec.workers.nodes)  # fewest processes a node that the fixed degrees divide into
    if not open_ended:
        if fixed % spec.workers.nodes:
            raise UserError([_uneven(fixed, spec.workers.nodes)])
        return unit
    feeds = spec.training.batch * max(1, spec.context.length // LEAST_TOKENS_CPU) // spec.workers.nodes
    return unit * max(1, min(machines.cpus_per_node or 1, feeds) // unit)


def _uneven(ranks: int, nodes: int) -> Fault:
    return Fault(
        "spec.workers.nodes",
        f"{nodes} nodes do not divide the {ranks} ranks of spec.parallelism evenly",
        f"Take a number of nodes that divides {ranks}.",
    )


def fixed_product(parallelism: Parallelism) -> tuple[int, bool]:
    """Product of the degrees given as numbers, and whether data or context is left open."""
    degrees = (parallelism.data, parallelism.pipeline, parallelism.context, parallelism.tensor)
    product = math.prod(d for d in degrees if d != "auto")
    return product, "auto" in (parallelism.data, parallelism.context)
