"""Named tensors to files and back, by `torch.distributed.checkpoint` (DCP), and never code.

DCP divides the writing of replicated tensors among the ranks, and loads into any other number of them. Its default
reader unpickles what is no tensor without restriction, and its index (`.metadata`) too. So nothing but tensors is
ever handed to it here (a number becomes a tensor of one), a file that holds anything else is refused, and the index
is read by an unpickler that knows DCP's own classes and no others.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ring_worker.checkpoint.errors import CheckpointError, DamagedCheckpointError, MismatchedCheckpointError

INDEX = ".metadata"
_SUFFIX = ".distcp"
_ALONE = "torch.distributed is disabled"
_METADATA = ("ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")
_KNOWN = frozenset(
    {
        *(f"torch.distributed.checkpoint.metadata.{name}" for name in (*_METADATA, "TensorStorageMetadata")),
        "torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING",
        "torch.distributed.checkpoint.filesystem._StorageInfo",
        "torch.Size",
        "torch.serialization._get_layout",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",  # its name in Python 3.13
    }
)


def files_of(folder: Path, rank: int) -> list[Path]:
    """The files in `folder` that `rank` of the group wrote; the index is rank 0's."""
    mine = sorted(folder.glob(f"__{rank}_*{_SUFFIX}"))
    return [*mine, folder / INDEX] if rank == 0 else mine


def write(tensors: dict[str, Tensor], folder: Path, group: dist.ProcessGroup | None) -> None:
    """Every rank of `group` writes its part of `tensors` into the empty `folder`, and fsyncs it.

    Raises CheckpointError on all ranks if one cannot.
    """
    with _plain_errors():
        writer = FileSystemWriter(folder, sync_files=True, overwrite=False)
        save(dict(tensors), storage_writer=writer, process_group=group, no_dist=group is None)


def read(tensors: dict[str, Tensor], folder: Path, group: dist.ProcessGroup | None) -> None:
    """Fill `tensors` in place, on every rank of `group`. The files must have been verified, and `require_fit` kept."""
    with _plain_errors():
        load(dict(tensors), storage_reader=_Reader(folder), process_group=group, no_dist=group is None)


def flatten(state: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Nested dicts of tensors and numbers as one dict by dotted name; numbers as int64 or float64 tensors of shape [].

    Raises TypeError for anything else.
    """
    flat: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = _tensor(f"{prefix}{name}", value)
    return flat


def fill_numbers(state: dict[str, Any], tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    """The way back of `flatten`, for the numbers in `state`: its tensors have been filled in place."""
    for name, value in state.items():
        if isinstance(value, dict):
            fill_numbers(value, tensors, f"{prefix}{name}.")
        elif not isinstance(value, Tensor):
            state[name] = tensors[f"{prefix}{name}"].item()


def _tensor(name: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if type(value) is int:
        return torch.tensor(value, dtype=torch.int64)
    if type(value) is float:
        return torch.tensor(value, dtype=torch.float64)
    raise TypeError(f"{name}: a checkpoint holds tensors, int and float, not {type(value).__name__}")


def require_fit(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Raises MismatchedCheckpointError if names, shapes or types differ from what was saved.

    Compared are the sections (first parts of the names) that `tensors` has.
    """
    index = _Reader(folder).read_metadata()
    sections = {name.partition(".")[0] for name in tensors}
    saved = {
        name: form
        for name, form in index.state_dict_metadata.items()
        if isinstance(form, TensorStorageMetadata) and name.partition(".")[0] in sections
    }
    for name in sorted(saved.keys() | tensors.keys()):
        there, here = _form(saved.get(name)), _form(tensors.get(name))
        if there != here:
            raise MismatchedCheckpointError(
                f"{folder}: {name} is {there} in the checkpoint, but {here} in this run.\n"
                "  Set the model as it was, or start anew in another folder."
            )


def _form(tensor: Tensor | TensorStorageMetadata | None) -> str:
    if tensor is None:
        return "absent"
    if isinstance(tensor, Tensor):
        return f"{tensor.dtype} {list(tensor.shape)}"
    return f"{tensor.properties.dtype} {list(tensor.size)}"


class _Reader(FileSystemReader):
    """DCP's reader, with an index that cannot run code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        path = Path(self.path) / INDEX
        with path.open("rb") as file:
            try:
                index = _IndexUnpickler(file).load()
            except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, TypeError) as error:
                raise DamagedCheckpointError(f"{path}: not an index of tensors: {error}") from None
        if not isinstance(index, Metadata):
            raise DamagedCheckpointError(f"{path}: not an index of tensors, but {type(index).__name__}")
        return index


class _IndexUnpickler(pickle.Unpickler):
    """Knows the classes that make up the index of tensors, each by its full name."""

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or f"{module}.{name}" in _KNOWN:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """DCP's collected failures, which are no `Exception`, as one CheckpointError naming the ranks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_ALONE)
        try:
            yield
        except CheckpointException as error:
            failures = [f"rank {rank}: {_told(cause)}" for rank, (cause, _) in sorted(error.failures.items())]
            raise CheckpointError("; ".join(failures)) from None


def _told(cause: BaseException) -> str:
    return str(cause) if isinstance(cause, OSError) else f"{type(cause).__name__}: {cause}"
