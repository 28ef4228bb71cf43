"""Checkpoints that survive kill -9 at any instant.

`torch.distributed.checkpoint` writes and reads the tensors (`tensors.py`); `folder.py` decides what on the disk
counts; `store.py` joins both over all ranks; `state.py` says what of a training run goes in. Training uses what
stands here.
"""

from ring_worker.checkpoint.errors import CheckpointError, DamagedCheckpointError, MismatchedCheckpointError
from ring_worker.checkpoint.state import Progress, progress_of, training_state
from ring_worker.checkpoint.store import Checkpoints, Writer

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "DamagedCheckpointError",
    "MismatchedCheckpointError",
    "Progress",
    "Writer",
    "progress_of",
    "training_state",
]
