"""What attention computes, as a table: every cell is computed here and now, and compared with dense attention in fp64.

python docs/support.py            # write docs/attention-support.md anew
python docs/support.py --check    # exit 1 if it is not what the code does

Two virtual ranks a cell, forward and backward. Triton's kernels run under its interpreter where there is no GPU. The
transports' table runs four gloo processes. What is refused is asked for, and the refusal printed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import torch  # noqa: E402

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is loaded

import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as processes  # noqa: E402

import oracle  # noqa: E402
from mask_cases import MASKS  # noqa: E402
from ring_worker.attention import Blocks, Layout, Mask, Ring, ring_attention, shard, virtual_rings  # noqa: E402
from ring_worker.attention.kernels.cpu_flash import CpuFlashKernel  # noqa: E402
from ring_worker.attention.kernels.reference import ReferenceKernel  # noqa: E402
from ring_worker.attention.kernels.triton_kernel import TritonKernel  # noqa: E402
from ring_worker.attention.layout import KINDS  # noqa: E402
from ring_worker.attention.transport import GlooTransport  # noqa: E402
from virtual_ring import through  # noqa: E402

PAGE = ROOT / "docs" / "attention-support.md"
KERNELS = {"reference": ReferenceKernel, "cpu-flash": CpuFlashKernel, "triton": TritonKernel}
LENGTH, SIZE = 48, 16
BOUND = 2e-5
NAMES = ("forward", "backward")

HEAD = """# What attention computes

Written by `python docs/support.py`, which computes every cell and compares it with dense attention in fp64 (fp32
inputs, {length} tokens, 2 query heads on 1 key head of {size}, two virtual ranks); a test runs it again. **f** forward
and **b** backward agree within {bound:g}; a dash is a refusal by name, never an approximation.
"""


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    page = HEAD.format(length=LENGTH, size=SIZE, bound=BOUND) + "\n".join(
        [*_masks(), *_options(), *_transports(), *_refusals()]
    )
    page += "\n"
    if "--check" in sys.argv:
        if page != PAGE.read_text():
            print(f"{PAGE.relative_to(ROOT)} is not what the code does. Run: python docs/support.py")
        return int(page != PAGE.read_text())
    PAGE.write_text(page)
    return 0


def _masks() -> Iterator[str]:
    columns = [f"{kernel}, {kind}" for kernel in KERNELS for kind in KINDS]
    yield from ("", "## Masks, by kernel and layout", "", *_head("mask", columns))
    for name, mask in MASKS.items():
        yield _row(name, [_cell(mask, kind, kernel=make()) for make in KERNELS.values() for kind in KINDS])


def _options() -> Iterator[str]:
    options: dict[str, dict[str, Any]] = {
        "soft cap": {"softcap": 2.0},
        "sinks": {"sinks": torch.tensor([-1.0, 1.0])},
        "soft cap and sinks": {"softcap": 2.0, "sinks": torch.tensor([-1.0, 1.0])},
        "values of another head size": {"value_size": 32},
        "queries travel in the backward pass": {"rotate": "queries"},
        "inner rings": {"inner": 1},
    }
    yield from ("", "## Options, causal zigzag", "", *_head("option", list(KERNELS)))
    for name, given in options.items():
        yield _row(name, [_cell(Mask(), "zigzag", kernel=make(), **given) for make in KERNELS.values()])


def _cell(
    mask: Mask,
    kind: str,
    *,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    value_size: int = SIZE,
    **options: Any,
) -> str:
    given = tensors(value_size)
    rings = virtual_rings(Layout(kind, LENGTH, 2, stripe=8), **options)
    try:
        found = through(rings, given, mask, softcap=softcap, sinks=sinks)
    except ValueError:
        return "-"
    exact = oracle.attention_and_gradients(*given, mask, softcap=softcap, sinks=sinks)
    return _agreement(found, exact)


def _agreement(found: list[torch.Tensor], exact: list[torch.Tensor]) -> str:
    good = [bool((a.double() - b).abs().max() < BOUND) for a, b in zip(found, exact, strict=True)]
    return " ".join(letter for letter, fine in (("f", good[0]), ("b", all(good[1:]))) if fine) or "wrong"


def tensors(value_size: int = SIZE) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = [(1, 2, LENGTH, SIZE), (1, 1, LENGTH, SIZE), (1, 1, LENGTH, value_size), (1, 2, LENGTH, value_size)]
    return [torch.randn(shape, generator=draw) for shape in shapes]


def _transports() -> Iterator[str]:
    columns = ["one ring", "inner rings of 2", "queries travel", "Ulysses 2 x ring 2"]
    yield from ("", "## Transports, four ranks, causal zigzag", "", *_head("transport", columns))
    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(_gloo_rank, args=(folder,), nprocs=4)
        gloo = [" ".join(sorted(cell, reverse=True)) for cell in torch.load(Path(folder) / "cells")]
    yield _row("gloo", gloo)
    loops: list[dict[str, Any]] = [{}, {"inner": 2}, {"rotate": "queries"}]
    exact = oracle.attention_and_gradients(*tensors(), Mask())
    rings = [virtual_rings(Layout("zigzag", LENGTH, 4), **options) for options in loops]
    yield _row("loop", [*(_agreement(through(r, tensors(), Mask()), exact) for r in rings), "none: heads are apart"])
    yield _row("NCCL, symmetric memory", ["written, not run on a GPU yet"] * 4)


def _gloo_rank(rank: int, folder: str) -> None:
    """One of four ranks. Writes, by rank 0, for each column the letters in which all ranks agree with the oracle."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=4)
    world = dist.group.WORLD
    pairs = [dist.new_group(ranks) for ranks in ([0, 1], [2, 3], [0, 2], [1, 3])]
    ring_group, heads_group = pairs[2 + rank % 2], pairs[rank // 2]
    assert world is not None
    assert ring_group is not None
    assert heads_group is not None
    over = partial(Ring.over, Layout("zigzag", LENGTH, 4), world)
    rings = [over(), over(inner=2), over(rotate="queries")]
    rings.append(Ring.over(Layout("zigzag", LENGTH, 2), ring_group, heads=GlooTransport(heads_group)))
    cells: list[Any] = [None] * 4
    dist.all_gather_object(cells, [_gloo_cell(ring) for ring in rings])
    if rank == 0:
        torch.save([set.intersection(*column) for column in zip(*cells, strict=True)], Path(folder) / "cells")
    dist.barrier()
    dist.destroy_process_group()


def _gloo_cell(ring: Ring) -> set[str]:
    given = tensors()
    exact = oracle.attention_and_gradients(*given, Mask())
    own = partial(_own, ring)
    q, k, v, do = (own(x) for x in given)
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    o = ring_attention(q, k, v, ring)
    found = [o.detach(), *torch.autograd.grad(o, (q, k, v), do)]
    return set(_agreement(found, [own(x) for x in exact]).split())


def _own(ring: Ring, x: torch.Tensor) -> torch.Tensor:
    return shard(x, ring.layout, ring.rank, dim=2).tensor_split(ring.heads.size, 2)[ring.heads.rank].contiguous()


def _refusals() -> Iterator[str]:
    asked: list[tuple[str, Callable[[], Any]]] = [
        ("global tokens with blocks", lambda: Mask(window=4, global_tokens=2, blocks=Blocks(8, 8, ((0,),)))),
        ("prefix without causal", lambda: Mask(causal=False, prefix=3)),
        ("a window of nothing", lambda: Mask(window=0)),
        ("documents that do not ascend", lambda: Mask(documents=(0, 9, 4))),
        ("blocks for half a sequence", lambda: _cell_error(Mask(blocks=Blocks(8, 8, ((0,), (1,)))))),
        ("a soft cap below 0", lambda: ring_attention(*tensors()[:3], Ring(Layout("zigzag", LENGTH, 1)), softcap=-1.0)),
        ("inner rings that do not divide", lambda: virtual_rings(Layout("zigzag", LENGTH, 4), inner=3)),
    ]
    yield from ("", "## What is refused", "", *_head("asked for", ["what is said"]))
    for name, ask in asked:
        try:
            ask()
        except ValueError as error:
            yield _row(name, [str(error)])
        else:
            raise AssertionError(f"{name} is not refused")


def _cell_error(mask: Mask) -> None:
    through(virtual_rings(Layout("zigzag", LENGTH, 2)), tensors(), mask)


def _head(first: str, columns: list[str]) -> tuple[str, str]:
    return _row(first, columns), "| --- |" + " --- |" * len(columns)


def _row(first: str, cells: list[str]) -> str:
    return f"| {first} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
