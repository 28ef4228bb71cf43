"""Do something on all ranks or on the first, so that all of them learn the outcome, a failure above all.

A rank that fails alone leaves the others waiting in the next collective until a time-out; here every rank raises the
same error. A process without a group is a world of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch.distributed as dist

from ring_worker.checkpoint.errors import CheckpointError

_T = TypeVar("_T")


class Ranks:
    """The ranks of `group`; None: this process alone."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self._group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)

    def each(self, act: Callable[[], _T]) -> list[_T]:
        """Every rank acts; all results, in the order of ranks. A CheckpointError of one rank is raised on all."""
        outcomes: list[_T | CheckpointError] = [_outcome(act, self.rank)]
        if self._group is not None:
            mine, outcomes = outcomes[0], [outcomes[0]] * self.size
            dist.all_gather_object(outcomes, mine, group=self._group)
        return [_result(outcome) for outcome in outcomes]

    def first(self, act: Callable[[], _T]) -> _T:
        """Rank 0 acts; its result, or its CheckpointError, on all."""
        outcomes: list[Any] = [_outcome(act, 0) if self.rank == 0 else None]
        if self._group is not None:
            dist.broadcast_object_list(outcomes, group=self._group, group_src=0)
        return _result(cast("_T | CheckpointError", outcomes[0]))


def _outcome(act: Callable[[], _T], rank: int) -> _T | CheckpointError:
    try:
        return act()
    except CheckpointError as error:
        return error
    except OSError as error:
        return CheckpointError(f"rank {rank}: {error}")


def _result(outcome: _T | CheckpointError) -> _T:
    if isinstance(outcome, CheckpointError):
        raise outcome
    return outcome
