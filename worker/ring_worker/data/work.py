"""Run one function over many arguments in several processes, so that no end of the parent leaves one of them behind.

Processes are spawned, not forked: they inherit neither the lock nor the threads of the parent. A thread in each waits
for the parent's death, since a killed parent cannot tell them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from ring_worker.data.errors import PreparationDiedError

A = TypeVar("A")
R = TypeVar("R")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_all(function: Callable[[A], R], arguments: Sequence[A], processes: int) -> Generator[R, None, None]:
    """Results as they come, in any order. With one process, or one argument, all happens in this one.

    Close the generator to end the processes early.

    Raises PreparationDiedError when a process was killed.
    """
    if processes <= 1 or len(arguments) <= 1:
        yield from map(function, arguments)
        return
    with _pool(min(processes, len(arguments))) as pool:
        waiting = {pool.submit(function, argument) for argument in arguments}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool:
            raise PreparationDiedError(
                "a preparing process was killed, perhaps for want of memory. "
                "Lower spec.data.workers, or give the preparation more memory; what is finished is kept."
            ) from None


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)
    try:
        yield pool
    except BaseException:  # an interrupt too: do not wait for work that nobody will take
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
