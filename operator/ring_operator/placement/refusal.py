"""Why there is no placement, in numbers, and the nearest way out."""

from __future__ import annotations

from collections.abc import Mapping

from ring_operator.placement.problem import Problem, Refusal


def too_few(problem: Problem, by_kind: Mapping[str, int]) -> Refusal:
    there = sum(by_kind.values())
    wanted = f"{problem.wanted} nodes are wanted"
    if there < problem.wanted:
        lower = f"Lower spec.workers.nodes to {there}, or free" if there else "Ask for less of each node, or free"
        return Refusal(f"{wanted}, {there} are free", f"{lower} more nodes.")
    kinds = ", ".join(f"{count} of {kind or 'no GPU'}" for kind, count in sorted(by_kind.items()))
    return Refusal(
        f"{wanted}, all of one kind, and free are {kinds}",
        f"Lower spec.workers.nodes to {max(by_kind.values())}, or free more nodes of one kind.",
    )


def too_narrow(problem: Problem, domains: Mapping[str, int], whole: int, wider: str | None) -> Refusal:
    assert problem.within is not None
    level = problem.levels[problem.within.level]
    largest = sorted(domains.items(), key=lambda entry: (-entry[1], entry[0]))[:3]
    rooms = ", ".join(f"{name} has {count}" for name, count in largest)
    lack = problem.size - (largest[0][1] if largest else 0)
    reason = (
        f"{problem.groups} rings of {problem.size} nodes, each inside one {level}, but only {whole} fit: {rooms}"
        + (f", {lack} too few" if lack > 0 else "")
    )
    ways = [f"spec.placement.within.level: {wider}"] if wider else []
    return Refusal(reason, f"Take {' or '.join([*ways, 'policy: preferred'])}, or free nodes there.")
