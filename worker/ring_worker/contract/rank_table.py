"""Who takes part in one epoch (one start of the ranks), and in which order: published anew at every start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ring_worker.contract.run_config import Degrees
from ring_worker.contract.strict import VERSION, ContractError, dump, load

MOST_RANKS = 1 << 20  # nothing that claims more is a table; counting its ranks would fill the memory


@dataclass(frozen=True, slots=True)
class Member:
    """One pod's part: ranks `first_rank .. first_rank + ranks - 1`. `position` of its first rank in `ring`."""

    pod: str
    node: str
    address: str
    first_rank: int
    ranks: int
    ring: int
    position: int


@dataclass(frozen=True, slots=True)
class Master:
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class RankTable:
    """Who takes part in one epoch, and in which order. `restarts`: failures behind this epoch, for the report.

    `token` separates epochs: ranks meet only under the same one.
    """

    epoch: int
    job_uid: str
    world_size: int
    degrees: Degrees
    master: Master
    token: str
    members: tuple[Member, ...]
    restarts: int = 0
    version: int = VERSION

    def member(self, pod: str) -> Member | None:
        return next((m for m in self.members if m.pod == pod), None)

    def to_json(self) -> str:
        return dump(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read strictly. Raises ContractError, also when the members' ranks are not exactly 0 .. world_size - 1."""
        table = load(cls, text, "RankTable")
        if max([table.world_size, *(m.ranks for m in table.members)]) > MOST_RANKS:
            raise ContractError(f"RankTable.world_size: more than {MOST_RANKS:,} ranks")
        ranks = sorted(r for m in table.members for r in range(m.first_rank, m.first_rank + m.ranks))
        if ranks != list(range(table.world_size)):
            raise ContractError(f"RankTable.members: ranks {ranks} are not 0..{table.world_size - 1}, each once")
        if table.degrees.world_size != table.world_size:
            raise ContractError(
                f"RankTable.degrees: their product {table.degrees.world_size} is not world_size {table.world_size}"
            )
        return table
