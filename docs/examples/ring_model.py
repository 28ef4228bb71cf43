"""Ring attention in a model of twenty lines, in plain torch.

python docs/examples/ring_model.py                                  # one process, which holds the whole sequence
torchrun --nproc-per-node 4 docs/examples/ring_model.py             # four, which hold a quarter each: the same losses
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ring_worker.attention import Layout, Mask, Ring, ring_attention, shard

LENGTH, VOCABULARY, WIDTH, HEADS, KEY_HEADS, SIZE = 2048, 256, 128, 4, 2, 32


# the model
class Attention(nn.Module):
    def __init__(self, ring: Ring, mask: Mask) -> None:
        super().__init__()
        self.ring, self.mask = ring, mask
        self.q, self.kv = nn.Linear(WIDTH, HEADS * SIZE), nn.Linear(WIDTH, 2 * KEY_HEADS * SIZE)
        self.out = nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (-1, SIZE)).transpose(1, 2) for y in (self.q(x), *self.kv(x).chunk(2, dim=-1)))
        o = ring_attention(q, k, v, self.ring, self.mask)
        return x + self.out(o.transpose(1, 2).flatten(2))


class Model(nn.Module):
    def __init__(self, ring: Ring) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.Sequential(Attention(ring, Mask(window=256)), Attention(ring, Mask()))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(tokens) + self.place(positions)))


# the end of the model


def main() -> None:
    if "RANK" in os.environ:  # started by torchrun
        dist.init_process_group("gloo")
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    layout = Layout("zigzag", LENGTH, ranks)
    ring = Ring.over(layout, dist.group.WORLD) if ranks > 1 else Ring(layout)
    torch.manual_seed(0)
    model = Model(ring)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    text = (torch.arange(LENGTH + 1) ** 2 % 251)[None]
    # labels are shifted before anything is sharded; whatever belongs to a token goes the same way
    parts = (shard(x, layout, ring.rank) for x in (text[:, :-1], text[:, 1:], torch.arange(LENGTH)[None]))
    tokens, labels, positions = parts
    for step in range(3):
        loss = cross_entropy(model(tokens, positions).flatten(0, 1), labels.flatten(), reduction="sum") / LENGTH
        optimizer.zero_grad()
        loss.backward()
        total = loss.detach()
        for x in [total, *(p.grad for p in model.parameters())] if ranks > 1 else []:
            dist.all_reduce(x)
        optimizer.step()
        if ring.rank == 0:
            print(f"step {step} loss {total:.5f}")
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
