"""Exact ring attention, usable without the rest of the trainer.

    from ring_worker.attention import Layout, Mask, Ring, ring_attention, shard

The names below are the public ones. They are loaded when they are first asked for, since the schedule and the masks
need no torch and must start without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ring_worker.attention.function import loop_attention, ring_attention, virtual_rings
    from ring_worker.attention.keep import keep_output
    from ring_worker.attention.layout import Layout
    from ring_worker.attention.masks import CAUSAL, FULL, Blocks, Mask
    from ring_worker.attention.ring import Ring
    from ring_worker.attention.shards import gather, shard, unshard

_WHERE = {
    "CAUSAL": "masks",
    "FULL": "masks",
    "Blocks": "masks",
    "Layout": "layout",
    "Mask": "masks",
    "Ring": "ring",
    "gather": "shards",
    "keep_output": "keep",
    "loop_attention": "function",
    "ring_attention": "function",
    "shard": "shards",
    "unshard": "shards",
    "virtual_rings": "function",
}

__all__ = [
    "CAUSAL",
    "FULL",
    "Blocks",
    "Layout",
    "Mask",
    "Ring",
    "gather",
    "keep_output",
    "loop_attention",
    "ring_attention",
    "shard",
    "unshard",
    "virtual_rings",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
