"""An interpreter of its own ends by itself after a peer was lost, with threads that still wait and no group destroyed.

The ranks of other tests leave by os._exit, as the trainer does. Who uses the ring as a library leaves by destructors.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORLD = 3
END_SECONDS = 120  # with the start of three interpreters; a hang would last for the 600 s of the transport


def be(rank: int, store: str, end: str) -> None:
    """Rank 0 sends to rank 1, which is lost, and waits for rank 2, which lives and says nothing."""
    import torch
    import torch.distributed as dist

    from ring_worker.attention.transport import GRADIENTS, KEYS, GlooTransport, Message, TransportError

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    group = dist.group.WORLD
    assert group is not None
    transport = GlooTransport(group, timeout_seconds=3.0 if end == "SIGSTOP" else 600.0)
    dist.barrier()
    if rank == 1:
        os.kill(os.getpid(), signal.Signals[end])
    time.sleep(0.3 if rank == 0 else 3600)
    try:
        large = Message(torch.zeros(64 * 2**20, dtype=torch.uint8), 1)
        lost = transport.exchange(KEYS, [large], [])
        time.sleep(0.3)  # so that it is clear whose time is up first
        transport.exchange(GRADIENTS, [], [Message(torch.zeros(9), 2)])
        lost.wait()
    except TransportError as error:
        print(error)


@pytest.mark.parametrize("end", ["SIGSTOP", "SIGKILL"])
def test_an_interpreter_ends_after_a_peer_was_lost(tmp_path: Path, end: str) -> None:
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, __file__]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), end], stdout=subprocess.PIPE, env=env, text=True
        )
        for rank in range(WORLD)
    ]
    try:
        said, _ = started[0].communicate(timeout=END_SECONDS)
        assert "rank 0 -> rank 1 (keys)" in said
        assert started[0].returncode == 0
    finally:
        for process in started:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    be(int(sys.argv[1]), sys.argv[2], sys.argv[3])
