"""What of a training run is in its checkpoint.

The weights, the optimizer's state by parameter, and how far the run has come; that is all a step depends on. Hyper-
parameters are not in it: learning rate, betas and decay follow from the manifest and the step, so a manifest changed
on purpose takes effect.

The tensors are the live ones. Saving copies nothing, and loading fills model and optimizer where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
)
from torch.optim import Optimizer


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come. `sequences` consumed over all data ranks: the data position, whatever the data degree.

    `step`: last finished one. `tokens`: trained. `seconds`: of training, restarts and evaluation left out. `text` tells
    the text that `sequences` counts in from any other; 0 where unknown.
    """

    step: int = 0
    sequences: int = 0
    tokens: int = 0
    seconds: float = 0.0
    text: int = 0


def training_state(model: nn.Module, optimizer: Optimizer, progress: Progress) -> dict[str, Any]:
    """What `Checkpoints.save` takes and `load` fills. To be called between steps, without gradients of use.

    An optimizer that has not stepped yet gets its state now, at nought, so that there is something to load into.
    """
    return {
        "model": get_model_state_dict(model),
        "optimizer": _optimizer_state(model, optimizer),
        "progress": asdict(progress),
    }


def progress_of(state: Mapping[str, Any]) -> Progress:
    """The progress in a state that has been loaded."""
    return Progress(**state["progress"])


@contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    """Gradients set aside: torch makes no state for an optimizer whose parameters have any, and says nothing."""
    aside = {parameter: parameter.grad for parameter in model.parameters()}
    model.zero_grad(set_to_none=True)
    yield
    for parameter, gradient in aside.items():
        parameter.grad = gradient


def _optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by dotted name of parameter and state, as `layers.0.weight.exp_avg`."""
    fresh = not optimizer.state
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    with _without_gradients(model) if fresh else nullcontext():
        flat: dict[str, Any] = dict(get_optimizer_state_dict(model, optimizer, options=options))
    tensors = {
        name.removeprefix("state."): value
        for name, value in flat.items()
        if name.startswith("state.") and isinstance(value, Tensor)
    }
    if fresh:  # torch makes the state by a step without effect, and counts that step
        for tensor in tensors.values():
            tensor.zero_()
    return tensors
