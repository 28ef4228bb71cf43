"""The rules of `spec.rules` and `spec.shape_rules` in CEL, so that the API server refuses what `ringctl` refuses.

Each row stands for a rule there and says the same of the same field; tests send every case of those through a real API
server. Defaults are filled in before rules are checked, so fields that have one need no `has`.
"""

from __future__ import annotations

from ring_operator import names
from ring_operator.crd.cel import Rule, any_of, quoted, told
from ring_operator.spec.model import Attention, Context
from ring_operator.spec.presets import PRESETS
from ring_operator.spec.shape_rules import BYTES_VOCABULARY
from ring_operator.spec.training import Probe, Schedule


def one_of(at: str, *fields: str) -> Rule:
    """Exactly one of the fields is given."""
    given = ", ".join(f"has(self.{field})" for field in fields)
    return Rule(
        at=at,
        holds=f"[{given}].filter(given, given).size() == 1",
        message=f"takes exactly one of {', '.join(fields)}",
    )


_HEAD_WIDTH = "(has(self.headDim) ? self.headDim : self.hidden / self.heads)"
_ROPE_REACH = "self.rope.factor * double(self.rope.originalLength)"

_SHAPE = (
    one_of("spec.model", "preset", "architecture", "hf"),
    Rule(
        at="spec.model.architecture",
        holds="!has(self.kvHeads) || self.heads % self.kvHeads == 0",
        message="does not divide heads",
        says=told("%s does not divide heads %s", "self.kvHeads", "self.heads"),
        field=".kvHeads",
    ),
    Rule(
        at="spec.model.architecture",
        holds="has(self.headDim) || self.hidden % self.heads == 0",
        message="is not divisible by heads. Set headDim, or change it.",
        says=told("%s is not divisible by heads %s. Set headDim, or change it.", "self.hidden", "self.heads"),
        field=".hidden",
    ),
    Rule(
        at="spec.model.architecture",
        holds=f"{_HEAD_WIDTH} % 2 == 0 || (!has(self.headDim) && self.hidden % self.heads != 0)",
        message="is odd, but rotary positions turn pairs",
        says=told("%s is odd, but rotary positions turn pairs", _HEAD_WIDTH),
        field=".headDim",
    ),
    Rule(
        at="spec.context",
        holds="self.rope.type != 'default' || (self.rope.factor == 1.0 && !has(self.rope.originalLength))",
        message="factor and originalLength have no effect with type default. Set type, such as yarn.",
        field=".rope",
    ),
    Rule(
        at="spec.context",
        holds="self.rope.type in ['default', 'linear'] || has(self.rope.originalLength)",
        message="is missing; only type linear does without. Give the length trained on, in tokens.",
        says=told("is missing; %s needs it. Give the length trained on, in tokens.", "self.rope.type"),
        field=".rope.originalLength",
    ),
    Rule(
        at="spec.context",
        holds=f"self.rope.type == 'default' || !has(self.rope.originalLength) || {_ROPE_REACH} >= double(self.length)",
        message="factor x originalLength is less than context.length",
        says=told(
            "%s x originalLength %s = %s positions, but context.length is %s",
            *(
                f"string({value})"
                for value in ("self.rope.factor", "self.rope.originalLength", _ROPE_REACH, "self.length")
            ),
        ),
        field=".rope.factor",
    ),
    Rule(
        at="spec",
        holds=(
            "self.data.tokenizer != 'bytes' || !has(self.model.architecture)"
            " || !has(self.model.architecture.vocabulary)"
            f" || self.model.architecture.vocabulary >= {BYTES_VOCABULARY}"
        ),
        message=f"the tokenizer bytes has {BYTES_VOCABULARY} tokens: 256 bytes, and a document's start. "
        f"Raise it to {BYTES_VOCABULARY}, or leave it out.",
        field=".model.architecture.vocabulary",
    ),
)


def _only_with_layers(field: str, default: object, kind: str) -> Rule:
    return Rule(
        at="spec.model.attention",
        holds=f"self.{field} == {default} || '{kind}' in self.pattern",
        message=f"has no effect: no layer of the pattern is of the kind {kind}. Leave it out, or put {kind} into the "
        "pattern.",
        field=f".{field}",
    )


_WITHOUT_EFFECT = (
    _only_with_layers("window", Attention.model_fields["window"].default, "window"),
    _only_with_layers("chunk", Attention.model_fields["chunk"].default, "chunk"),
    _only_with_layers("globalTokens", Attention.model_fields["global_tokens"].default, "window"),
    Rule(
        at="spec.context",
        holds=f"self.layout == 'striped' || self.stripe == {Context.model_fields['stripe'].default}",
        message="has no effect but with layout striped. Leave it out, or set layout to striped.",
        field=".stripe",
    ),
    Rule(
        at="spec.training.schedule",
        holds=f"self.kind != 'constant' || self.finalRatio == {Schedule.model_fields['final_ratio'].default}",
        message="has no effect with kind constant, which never falls. Leave it out, or take kind cosine.",
        field=".finalRatio",
    ),
    Rule(
        at="spec.training.probe",
        holds=f"self.everySteps > 0 || self.rows == {Probe.model_fields['rows'].default}",
        message="has no effect with everySteps 0: nothing is probed. Leave it out, or set everySteps, such as 100.",
        field=".rows",
    ),
    Rule(
        at="spec.evaluation",
        holds="!has(self.samplePrompt) || self.samplePrompt == '' || self.sampleTokens > 0",
        message="has no effect with sampleTokens 0. Set sampleTokens, such as 200.",
        field=".samplePrompt",
    ),
)

_PRESET_HEADS = ", ".join(f"{quoted(name)}: {shape.heads}" for name, shape in PRESETS.items())
_PRESET_KV_HEADS = ", ".join(f"{quoted(name)}: {shape.key_heads}" for name, shape in PRESETS.items())
_SHAPED = "has(self.model.architecture) || has(self.model.preset)"
_HEADS = f"(has(self.model.architecture) ? self.model.architecture.heads : {{{_PRESET_HEADS}}}[self.model.preset])"
_OWN_KV_HEADS = (
    "(has(self.model.architecture.kvHeads) ? self.model.architecture.kvHeads : self.model.architecture.heads)"
)
_KV_HEADS = f"(has(self.model.architecture) ? {_OWN_KV_HEADS} : {{{_PRESET_KV_HEADS}}}[self.model.preset])"
_ULYSSES = "self.parallelism.ulysses"

_DEGREES = (
    Rule(
        at="spec.parallelism",
        holds="type(self.context) != int || self.context % self.ulysses == 0",
        message="does not divide context",
        says=told("%s does not divide context %s", "string(self.ulysses)", "string(self.context)"),
        field=".ulysses",
    ),
    Rule(
        at="spec",
        holds=f"!({_SHAPED}) || {_HEADS} % {_ULYSSES} == 0",
        message="does not divide the model's heads",
        says=told("%s does not divide heads %s", _ULYSSES, _HEADS),
        field=".parallelism.ulysses",
    ),
    Rule(
        at="spec",
        holds=f"!({_SHAPED}) || {_KV_HEADS} % {_ULYSSES} == 0 || {_ULYSSES} % {_KV_HEADS} == 0",
        message="neither divides the model's kvHeads nor is a multiple of them",
        says=told("%s neither divides kvHeads %s nor is a multiple of them", _ULYSSES, _KV_HEADS),
        field=".parallelism.ulysses",
    ),
    Rule(
        at="spec.parallelism",
        holds=(
            "!has(self.innerRing) || type(self.context) != int || self.context % self.ulysses != 0"
            " || (self.context / self.ulysses) % self.innerRing == 0"
        ),
        message="does not divide the ring, context / ulysses",
        says=told(
            "%s does not divide the ring, context %s / ulysses %s",
            *(f"string(self.{field})" for field in ("innerRing", "context", "ulysses")),
        ),
        field=".innerRing",
    ),
    Rule(
        at="spec.workers",
        holds="type(self.gpusPerNode) != int || self.gpusPerNode == 0 || self.processesPerNode == 'auto'",
        message="goes with gpusPerNode 0 alone: with GPUs there is one rank a GPU. Leave it out.",
        field=".processesPerNode",
    ),
)

_TRAINING = (
    one_of("spec.data.source", "path", "jsonl", "parquet", "tokens", "builtin"),
    Rule(
        at="spec.data.source",
        holds=(
            "has(self.path) || has(self.builtin)"
            " || ((!has(self.include) || self.include.size() == 0) && (!has(self.exclude) || self.exclude.size() == 0))"
        ),
        message="include and exclude choose files of path or builtin. Leave them out.",
    ),
    Rule(
        at="spec",
        holds="!self.evaluation.heldOut || self.data.heldOut.fraction > 0.0",
        message="true, but data.heldOut.fraction is 0: there is nothing to measure on. "
        "Set it to false, or hold out a fraction such as 0.02.",
        field=".evaluation.heldOut",
    ),
    Rule(
        at="spec.training",
        holds="!has(self.schedule.warmupSteps) || self.schedule.warmupSteps <= self.steps",
        message="is more than steps: the learning rate would never reach lr",
        says=told(
            "%s is more than steps %s: the learning rate would never reach lr",
            "self.schedule.warmupSteps",
            "self.steps",
        ),
        field=".schedule.warmupSteps",
    ),
    Rule(
        at="spec.checkpoint",
        holds="self.resume in ['latest', 'none'] || self.resume.startsWith('/')",
        message="is neither latest nor none nor an absolute path",
        field=".resume",
    ),
)

_GPU = quoted(names.GPU_RESOURCE)


def _not_in(key: str, part: str) -> str:
    return f"(!has({part}) || !({key} in {part}))"


_PODS = (
    Rule(
        at="spec.workers.env[]",
        holds=f"!(self.name in {any_of(names.RESERVED_ENV)}) && !self.name.startsWith('{names.RESERVED_ENV_PREFIX}')",
        message="is set by the operator itself. Take another name.",
        field=".name",
    ),
    one_of("spec.workers.env[]", "value", "valueFrom"),
    one_of("spec.workers.env[].valueFrom", "secretKeyRef", "configMapKeyRef"),
    Rule(
        at="spec.workers.tolerations[]",
        holds="self.operator != 'Exists' || !has(self.value)",
        message="a value has no meaning with operator Exists. Leave it out, or use Equal.",
        field=".value",
    ),
    Rule(
        at="spec.workers.tolerations[]",
        holds="self.operator != 'Equal' || has(self.key)",
        message="is missing; only operator Exists does without. Give the key.",
        field=".key",
    ),
    Rule(
        at="spec.workers.tolerations[]",
        holds="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        message="has a meaning only with effect NoExecute. Leave it out.",
        field=".tolerationSeconds",
    ),
    Rule(
        at="spec.workers.resources",
        holds=f"{_not_in(_GPU, 'self.requests')} && {_not_in(_GPU, 'self.limits')}",
        message=f"{names.GPU_RESOURCE} is set by workers.gpusPerNode. Leave it out and set workers.gpusPerNode.",
    ),
    Rule(
        at="spec.workers",
        holds=(
            f"!has(self.rdma) || ({_not_in('self.rdma.resource', 'self.resources.requests')}"
            f" && {_not_in('self.rdma.resource', 'self.resources.limits')})"
        ),
        message="the resource of rdma is set by workers.rdma.count. Leave it out and set workers.rdma.count.",
        field=".resources",
    ),
)

RULES = (*_SHAPE, *_WITHOUT_EFFECT, *_DEGREES, *_TRAINING, *_PODS)
