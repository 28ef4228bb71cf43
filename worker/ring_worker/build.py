"""RunConfig and mesh -> the parts that a training step is made of, put together in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from ring_worker import contract
from ring_worker.attend import Watch, layer_masks, over_ring
from ring_worker.attention.calibrate import calibrate
from ring_worker.attention.kernels.tile_table import HEAD_SIZES
from ring_worker.attention.layout import Layout
from ring_worker.attention.meter import CudaClock, HostClock, Meter
from ring_worker.attention.ring import Ring
from ring_worker.attention.transport import GlooTransport, NcclTransport, Solo, Transport
from ring_worker.checkpoint import Checkpoints, Writer
from ring_worker.data.dataset import Dataset
from ring_worker.errors import ConfigError
from ring_worker.mesh import Mesh
from ring_worker.model import Transformer, padded_vocabulary
from ring_worker.optim import make_optimizer
from ring_worker.shard import Shard, Sharder, ranges_of

FEED_FORWARD_CHUNK = 4096  # tokens
LOGITS_AT_ONCE = 2**24  # numbers: 64 MiB in fp32
CALIBRATION_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Parts:
    """What a rank trains with. Weights are replicated over all ranks; the sequence lies over the ring."""

    config: contract.RunConfig
    mesh: Mesh
    dataset: Dataset
    model: Transformer
    optimizer: torch.optim.Optimizer
    gradients: Tensor  # all gradients, one flat buffer that the parameters' .grad are views of
    ring: Ring
    sharder: Sharder
    checkpoints: Checkpoints

    @property
    def text(self) -> int:
        """A number that tells the prepared text from any other, above 0 and below 2^63."""
        return int(self.dataset.fingerprint[:15], 16) + 1

    @property
    def loss_chunk(self) -> int:
        """Tokens whose logits are held at once."""
        return max(64, LOGITS_AT_ONCE // padded_vocabulary(self.model.vocabulary))

    def hidden(self, shard: Shard, watch: Watch | None = None) -> Tensor:
        """Hidden states [S, C] of this rank's tokens, in the job's precision."""
        masks = layer_masks(self.config.model, shard.documents)
        attend = over_ring(self.ring, masks, self.config.model.attention.soft_cap, watch)
        with torch.autocast(self.mesh.device.type, torch.bfloat16, enabled=self.config.training.precision == "bf16"):
            hidden: Tensor = self.model(shard.tokens, shard.positions, attend)[0]
            return hidden


def build(config: contract.RunConfig, mesh: Mesh) -> Parts:
    """Raises ConfigError where job, ranks, model and data do not fit together, and what the data's module raises."""
    require_supported(config, mesh)
    dataset = Dataset.open(config.data, config.context.length)
    _require_one_text(dataset, mesh)
    layout = Layout(config.context.layout, config.context.length, config.degrees.ring, config.context.stripe)
    ranges = ranges_of(layout, mesh.place, mesh.member, config.degrees.ulysses)
    model = _model(config, dataset.vocabulary).to(mesh.device)
    return Parts(
        config=config,
        mesh=mesh,
        dataset=dataset,
        model=model,
        optimizer=make_optimizer(model, config.training.optimizer),
        gradients=_flat_gradients(model),
        ring=_ring(config, mesh, layout),
        sharder=Sharder(ranges, config.data.packing, mesh.device),
        checkpoints=Checkpoints(
            Path(config.checkpoint.path), config.checkpoint.keep, mesh.storage, Writer(config.job_uid, config.degrees)
        ),
    )


def require_supported(config: contract.RunConfig, mesh: Mesh) -> None:
    """Raises ConfigError for what this worker does not do. The operator refuses it first, where it is the operator."""
    degrees, head = config.degrees, config.model.head_dim
    if (degrees.pipeline, degrees.tensor) != (1, 1):
        raise ConfigError(f"degrees: pipeline and tensor must be 1, but are {degrees}")
    _require_ring(config)
    if degrees.world_size != mesh.launch.world_size:
        raise ConfigError(
            f"degrees: {degrees} are {degrees.world_size} ranks, but {mesh.launch.world_size} were started"
        )
    least = max(2, degrees.ulysses) * degrees.ring
    if config.context.length < least:
        raise ConfigError(
            f"context.length: {config.context.length} tokens, but context {degrees.context} needs at least {least}"
        )
    if config.training.batch % degrees.data:
        raise ConfigError(f"training.batch: {config.training.batch} does not divide by data {degrees.data}")
    if config.device == "cuda" and not HEAD_SIZES[0] <= head <= HEAD_SIZES[1]:
        raise ConfigError(
            f"model.architecture.headDim: {head}, but kernels on GPUs take {HEAD_SIZES[0]} to {HEAD_SIZES[1]}"
        )


def _require_ring(config: contract.RunConfig) -> None:
    degrees, model = config.degrees, config.model
    ulysses, inner = degrees.ulysses, degrees.inner_ring or degrees.ring
    if degrees.context % ulysses:
        raise ConfigError(f"degrees.ulysses: {ulysses} does not divide context {degrees.context}")
    if model.heads % ulysses or (model.kv_heads % ulysses and ulysses % model.kv_heads):
        raise ConfigError(
            f"degrees.ulysses: {ulysses} must divide the {model.heads} heads, and divide the {model.kv_heads} key "
            "heads or be a multiple of them"
        )
    if degrees.ring % inner:
        raise ConfigError(f"degrees.inner_ring: {inner} does not divide the ring of {degrees.ring}")


def _require_one_text(dataset: Dataset, mesh: Mesh) -> None:
    """Pods without a shared folder prepare each for itself: what they train on must be the same text."""
    texts: list[str | None] = [None] * mesh.launch.world_size
    dist.all_gather_object(texts, dataset.fingerprint)
    if other := next((rank for rank, text in enumerate(texts) if text != texts[0]), None):
        raise ConfigError(
            f"data.source: rank {other} has prepared another text than rank 0 ({texts[other]}, not {texts[0]}). "
            "Give all pods the same files: size and time of change count."
        )


def _model(config: contract.RunConfig, vocabulary: int) -> Transformer:
    wanted = config.model.vocabulary
    if 0 < wanted < vocabulary:
        raise ConfigError(
            f"model.vocabulary: {wanted}, but the tokenizer {config.data.tokenizer} has {vocabulary} tokens. "
            f"Raise it to {vocabulary}, or leave it out."
        )
    model = Transformer(config.model, max(wanted, vocabulary), config.training.recompute, FEED_FORWARD_CHUNK)
    model.initialise(config.training.seed)
    return model


def _flat_gradients(model: Transformer) -> Tensor:
    """Make every parameter's gradient a view of one buffer, which is then reduced over the ranks without a copy."""
    parameters = list(model.parameters())
    flat = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    for parameter, view in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = view.view_as(parameter)
    return flat


def _ring(config: contract.RunConfig, mesh: Mesh, layout: Layout) -> Ring:
    on_gpu, degrees = mesh.device.type == "cuda", config.degrees
    ring = Ring(
        layout,
        _transport(mesh, mesh.places, degrees.ring),
        meter=Meter(CudaClock() if on_gpu else HostClock()),
        inner=degrees.inner_ring,
        heads=_transport(mesh, mesh.members, degrees.ulysses),
        gradient_dtype=torch.bfloat16 if config.training.ring_gradients == "bf16" else None,
    )
    tokens = min(layout.size(mesh.place), CALIBRATION_TOKENS)
    dtype = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
    heads = (max(1, count // degrees.ulysses) for count in (config.model.heads, config.model.kv_heads))
    q, k = (torch.zeros(1, h, tokens, config.model.head_dim, dtype=dtype, device=mesh.device) for h in heads)
    ring.meter.calibration = calibrate(ring, q, k, mesh.world)
    return ring


def _transport(mesh: Mesh, group: dist.ProcessGroup, ranks: int) -> Transport:
    if ranks == 1:
        return Solo()
    return NcclTransport(group) if mesh.device.type == "cuda" else GlooTransport(group, mesh.one_host)
