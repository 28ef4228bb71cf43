"""Loss and gradient norm do not depend on how the work is spread over ranks, whatever labels are masked."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from gloo_ranks import outcomes
from ring_worker import contract
from ring_worker.build import build
from ring_worker.checkpoint import Progress
from ring_worker.contract import Degrees
from ring_worker.data.prepare import prepare
from ring_worker.mesh import Launch, open_mesh
from ring_worker.step import Wishes, train_step
from ring_worker.telemetry.record import UNPROBED

LENGTH = 96
BATCH = 2
STEPS = 3
PROBED = 4  # rows of attention a step
SHAPES = {
    "alone": Degrees(),
    "ring of 2": Degrees(context=2),
    "ring of 4": Degrees(context=4),
    "two rings of 2": Degrees(data=2, context=2),
    "heads over 2, ring of 2": Degrees(context=4, ulysses=2),
    "two inner rings of 2": Degrees(context=4, inner_ring=2),
}


def run_config(folder: Path, degrees: Degrees, **changes: Any) -> contract.RunConfig:
    """Every kind of layer, with all that attention can learn or be bent by; grouped heads."""
    pattern = contract.AttentionPattern(("full", "window", "chunk"), 20, 24, global_tokens=5, sinks=True, soft_cap=3.0)
    made = contract.RunConfig(
        job="parity",
        job_uid="uid",
        device="cpu",
        degrees=degrees,
        model=contract.Model(3, 32, 4, 2, 8, 64, attention=pattern),
        context=contract.Context(LENGTH),
        data=contract.Data(contract.Source("path", path=str(folder / "text")), str(folder / "data"), workers=1),
        training=contract.Training(
            STEPS,
            BATCH,
            contract.Optimizer(lr=1e-2, clip_norm=0.5),
            precision="fp32",
            probe=contract.Probe(1, PROBED),
        ),
        checkpoint=contract.Checkpoint(str(folder / "checkpoints")),
        evaluation=contract.Evaluation(),
        output=str(folder / "run"),
    )
    return replace(made, training=replace(made.training, **changes))


@dataclass(frozen=True)
class Masked:
    """The dataset, with labels taken away: every third one, or all that the last zigzag rank of four has."""

    inner: Any
    everything_of: tuple[tuple[int, int], ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def training(self, index: int) -> Any:
        return MaskedWindow(self.inner.training(index), self.everything_of)


@dataclass(frozen=True)
class MaskedWindow:
    inner: Any
    everything_of: tuple[tuple[int, int], ...]

    @property
    def document_starts(self) -> tuple[int, ...]:
        return tuple(self.inner.document_starts)

    def tokens(self, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
        return self.inner.tokens(ranges)

    def labels(self, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
        positions = np.concatenate([np.arange(*r) for r in ranges])
        hidden = positions % 3 == 0
        for start, stop in self.everything_of:
            hidden |= (positions >= start) & (positions < stop)
        return np.where(hidden, -100, self.inner.labels(ranges))


def text(folder: Path) -> None:
    (folder / "text").mkdir()
    for i in range(40):
        (folder / "text" / f"{i}.txt").write_text(f"document {i}: " + "the ring turns and turns. " * (3 + i % 5))


def steps(
    group: dist.ProcessGroup, say: Callable[[Any], None], config: contract.RunConfig, port: int, hidden: Any
) -> None:
    """[(loss, gradient norm)] of a few steps, and (rows probed, mismatches) in all of them."""
    rank, world = (0, 1) if group is None else (dist.get_rank(), dist.get_world_size())
    if group is not None:
        dist.destroy_process_group()
    launch = Launch(rank=rank, world_size=world, local_rank=rank, master_port=port, token="t")
    parts = build(config, open_mesh(launch, config.degrees, "cpu"))
    parts = replace(parts, dataset=Masked(parts.dataset, hidden))
    progress, seen, probes = Progress(), [], UNPROBED
    for step in range(1, STEPS + 1):
        result = train_step(parts, progress, Wishes)
        seen.append((result.loss, result.grad_norm))
        probes += result.probes
        progress = Progress(step=step, sequences=step * BATCH)
    say((seen, (probes.rows, probes.mismatches)))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("packing", ["documents", "concatenate"])
@pytest.mark.parametrize(
    "hidden", [(), ((36, 60),)], ids=["every third label masked", "one rank of four without any label"]
)
def test_loss_and_gradient_norm_are_the_same_for_every_shape(tmp_path: Path, packing: str, hidden: Any) -> None:
    text(tmp_path)
    found = []
    for degrees in SHAPES.values():
        config = run_config(tmp_path, degrees)
        config = replace(config, data=replace(config.data, packing=packing))
        prepare(config.data)
        found.append(outcomes(degrees.world_size, tmp_path, steps, config, free_port(), hidden))
    expected = np.array(found[0][0][0])
    for (name, degrees), of_shape in zip(SHAPES.items(), found, strict=True):
        for losses, (_, mismatches) in of_shape:
            np.testing.assert_allclose(np.array(losses), expected, rtol=2e-5, err_msg=name)
            assert mismatches == 0, name
        probed = sum(rows for _, (rows, _) in of_shape)
        assert probed == STEPS * PROBED * degrees.data * degrees.ulysses  # members each look at their heads


@pytest.mark.parametrize("recompute", ["attention", "output", "late", "full"])
def test_recomputing_changes_nothing(tmp_path: Path, recompute: str) -> None:
    text(tmp_path)
    found = []
    for mode in ("none", recompute):
        config = run_config(tmp_path, Degrees(context=2), recompute=mode)
        prepare(config.data)
        found.append([losses for losses, _ in outcomes(2, tmp_path, steps, config, free_port(), ())])
    # `late` computes early queries without late ones, which a kernel may take in other tiles; all else has equal bits
    np.testing.assert_allclose(np.array(found[1]), np.array(found[0]), rtol=1e-9 if recompute == "late" else 0)


def test_gradients_that_travel_in_bf16_are_near_those_in_fp32(tmp_path: Path) -> None:
    text(tmp_path)
    found = []
    for dtype in ("fp32", "bf16"):
        config = run_config(tmp_path, Degrees(context=2), ring_gradients=dtype)
        prepare(config.data)
        found.append(np.array(outcomes(2, tmp_path, steps, config, free_port(), ())[0][0]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)
    assert (found[1] != found[0]).any()


def test_bf16_follows_fp32(tmp_path: Path) -> None:
    text(tmp_path)
    found = []
    for precision in ("fp32", "bf16"):
        config = run_config(tmp_path, Degrees(context=2), precision=precision)
        prepare(config.data)
        found.append(outcomes(2, tmp_path, steps, config, free_port(), ())[0][0])
    np.testing.assert_allclose(np.array(found[1]), np.array(found[0]), rtol=0.05)
