"""The end of a run: a sample of generated text, report.json, loss.png."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from ring_worker.attend import alone, layer_masks
from ring_worker.build import Parts
from ring_worker.errors import ConfigError
from ring_worker.generate import Sampling, generate
from ring_worker.telemetry.journal import Journal
from ring_worker.telemetry.plot import draw_loss
from ring_worker.telemetry.report import Evaluated, RunFacts, report_of, write_report

SAMPLE_CONTEXT = 512  # tokens that a token of the sample is drawn from, at most


def write_results(parts: Parts, journal: Journal, alive: Callable[[], None]) -> None:
    """On rank 0 alone. `alive` is called for each token of the sample, which may take its time."""
    output, dataset = Path(parts.config.output), parts.dataset
    lines = journal.read()
    if not lines:
        raise ConfigError(
            f"{output}: the training is done, but its metrics.jsonl is gone, so there is nothing to report"
        )
    evaluated = Evaluated(
        heldout_bits_per_byte=lines[-1].heldout_bits_per_byte,
        unigram_bits_per_byte=dataset.unigram_bits_per_byte if dataset.held_out_sequences else None,
        bigram_bits_per_byte=dataset.bigram_bits_per_byte if dataset.held_out_sequences else None,
        sample_prompt=parts.config.evaluation.sample_prompt,
        sample=_sample(parts, alive),
    )
    report = report_of(lines, _facts(parts), evaluated)
    draw_loss(output / "loss.png", lines, report)
    write_report(output / "report.json", report)


def _facts(parts: Parts) -> RunFacts:
    config = parts.config
    return RunFacts(
        job=config.job,
        device=config.device,
        world_size=parts.mesh.launch.world_size,
        degrees=config.degrees,
        context_tokens=config.context.length,
        parameters=sum(p.numel() for p in parts.model.parameters()),
        restarts=parts.mesh.launch.restarts,
        torch_version=torch.__version__,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        bytes_per_token=parts.dataset.bytes_per_token,
    )


def _sample(parts: Parts, alive: Callable[[], None]) -> str:
    """Generated text as it comes, without the prompt; empty if none was asked for."""
    evaluation, dataset = parts.config.evaluation, parts.dataset
    if not evaluation.sample_tokens:
        return ""
    prompt = dataset.encode(evaluation.sample_prompt) or [dataset.bos]
    sampling = Sampling(evaluation.sample_tokens, SAMPLE_CONTEXT, parts.config.training.seed, 0.7, top_k=40)
    attend = alone(layer_masks(parts.config.model), parts.config.model.attention.soft_cap)
    tokens = []
    for token in generate(parts.model, attend, prompt, sampling):
        tokens.append(token)
        alive()
    return dataset.decode(tokens)
