"""Job and plan -> `RunConfig`, the document that every rank reads: all defaults and every `auto` settled."""

from __future__ import annotations

from dataclasses import dataclass

from ring_operator.plan import ParallelPlan
from ring_operator.spec import JobSpec, TrainingJob, architecture_of
from ring_worker import contract


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run lives. Folders as the worker sees them, absolute.

    `job_uid`: tells this run from earlier ones of its name. `image`: of the worker, where the job names none.
    """

    job_uid: str
    output: str
    checkpoints: str
    prepared: str
    image: str


def cluster_place(job: TrainingJob, job_uid: str, image: str) -> Place:
    """On a cluster everything lies beside the checkpoints, on the storage that all pods share."""
    root = job.spec.checkpoint.path.rstrip("/")
    return Place(job_uid=job_uid, output=f"{root}/run", checkpoints=root or "/", prepared=f"{root}/data", image=image)


def run_config(job: TrainingJob, plan: ParallelPlan, place: Place) -> contract.RunConfig:
    """Only for a job of which `unsupported` finds nothing."""
    spec = job.spec
    return contract.RunConfig(
        job=job.name,
        job_uid=place.job_uid,
        device=plan.device,
        degrees=plan.degrees,
        model=_model(spec),
        context=contract.Context(spec.context.length, spec.context.layout, spec.context.stripe),
        data=_data(spec, place),
        training=_training(spec, plan),
        checkpoint=_checkpoint(spec, place),
        evaluation=_evaluation(spec),
        output=place.output,
        threads=plan.threads,
    )


def _model(spec: JobSpec) -> contract.Model:
    shape, attention, rope = architecture_of(spec.model), spec.model.attention, spec.context.rope
    return contract.Model(
        layers=shape.layers,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.key_heads,
        head_dim=shape.head_width,
        feed_forward=shape.feed_forward,
        vocabulary=shape.vocabulary or 0,
        norm_eps=shape.norm_eps,
        tie_embeddings=shape.tie_embeddings,
        rope=contract.Rope(rope.type, shape.rope_base, rope.factor, rope.original_length or 0),
        attention=contract.AttentionPattern(
            pattern=attention.pattern,
            window=attention.window,
            chunk=attention.chunk,
            global_tokens=attention.global_tokens,
            sinks=attention.sinks,
            soft_cap=attention.soft_cap,
        ),
    )


def _data(spec: JobSpec, place: Place) -> contract.Data:
    data = spec.data
    return contract.Data(
        source=_source(spec),
        prepared=data.prepared or place.prepared,
        tokenizer=data.tokenizer,
        packing=data.packing,
        held_out_fraction=data.held_out.fraction,
        on_error=data.on_error,
        seed=data.seed,
        workers=data.workers,
    )


def _source(spec: JobSpec) -> contract.Source:
    source = spec.data.source
    if source.jsonl is not None:
        return contract.Source("jsonl", path=source.jsonl.path, field=source.jsonl.field)
    kind = "builtin" if source.builtin else "path"
    return contract.Source(
        kind, path=source.path or "", include=source.include, exclude=source.exclude, name=source.builtin or ""
    )


def _training(spec: JobSpec, plan: ParallelPlan) -> contract.Training:
    training, optimizer, schedule = spec.training, spec.training.optimizer, spec.training.schedule
    warmup = schedule.warmup_steps
    return contract.Training(
        steps=training.steps,
        batch=training.batch,
        optimizer=contract.Optimizer(optimizer.lr, optimizer.betas, optimizer.weight_decay, optimizer.clip_norm),
        schedule=contract.Schedule(
            kind=schedule.kind,
            warmup_steps=min(100, training.steps // 10) if warmup is None else warmup,
            final_ratio=schedule.final_ratio,
        ),
        precision=training.precision,
        recompute=plan.recompute,
        seed=training.seed,
        log_every_steps=training.log_every_steps,
        ring_gradients=training.ring_gradients,
        probe=contract.Probe(training.probe.every_steps, training.probe.rows),
    )


def _checkpoint(spec: JobSpec, place: Place) -> contract.Checkpoint:
    checkpoint = spec.checkpoint
    return contract.Checkpoint(
        path=place.checkpoints,
        every_steps=checkpoint.every_steps,
        every_minutes=checkpoint.every_minutes,
        keep=checkpoint.keep,
        resume=checkpoint.resume,
    )


def _evaluation(spec: JobSpec) -> contract.Evaluation:
    evaluation = spec.evaluation
    return contract.Evaluation(
        every_steps=evaluation.every_steps,
        sequences=evaluation.sequences,
        held_out=evaluation.held_out,
        sample_tokens=evaluation.sample_tokens,
        sample_prompt=evaluation.sample_prompt,
    )
