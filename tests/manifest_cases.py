"""Manifests that are refused, and how: `ringctl` and the API server are held to the same table.

A row is a change of the shortest manifest (paths as `--set` takes them), and what is said of it.
"""

from __future__ import annotations

from typing import Any

from job_manifests import STORAGE

OUT_OF_BOUNDS: list[tuple[str, Any, str, str]] = [
    ("context.length", "long", "long is not a whole number", "It is: Tokens of one sequence"),
    ("context.length", 1, "1 is less than the least allowed, 2", ""),
    ("context.length", 2**31, "2147483648 is more than the most allowed, 1,073,741,824", ""),
    ("context.length", True, "true is not a whole number", ""),
    ("context.length", 8.5, "8.5 is not a whole number", ""),
    ("context.layout", "zig-zag", "zig-zag is none of zigzag, striped, contiguous", "Did you mean zigzag?"),
    ("parallelism.data", "most", "most is neither a whole number from 1 to 65,536 nor auto", ""),
    ("parallelism.data", 0, "0 is neither a whole number from 1 to 65,536 nor auto", ""),
    ("training.optimizer.lr", 0, "0 is not more than 0", ""),
    ("training.optimizer.lr", ".inf", ".inf is not a number", ""),
    ("training.optimizer.betas", [0.9, 1], "1 is not less than 1", ""),
    ("training.optimizer.betas", [0.9], "is missing", ""),
    ("training.precision", "fp16", "fp16 is none of bf16, fp32", "Did you mean bf16?"),
    ("checkpoint.path", "checkpoints", "checkpoints does not have the form", "Folder of the checkpoints"),
    ("checkpoint.everyMinutes", -1, "-1 is less than the least allowed, 0", ""),
    ("model.attention.pattern", [], "has 0 entries, but needs at least 1", ""),
    ("model.attention.pattern", "full", "full is not a list", ""),
    ("model.attention.pattern", ["wndow"], "wndow is none of full, window, chunk", "Did you mean window?"),
    ("model.attention", "full", "full is not a mapping of fields", ""),
    ("data.onError", True, "true is none of stop, skip", ""),
    ("data.tokenizer", "", "is empty", ""),
    ("data.tokenizer", "x" * 5000, "has more than the 4,096 characters allowed", ""),
    ("workers.sharedMemory", "much", "much does not have the form", ""),
    ("workers.nodeSelector", {"disk": True}, "true is not a string; put it in quotes", ""),
    ("workers.nodeSelector", {"a b": "c"}, "a b is not a name that can stand here", ""),
    ("workers.nodeSelector", {"k" * 64: "c"}, "is not a name that can stand here", ""),
    ("workers.priorityClassName", "a..b", "a..b does not have the form", ""),
    ("workers.image", "two words", "two words does not have the form", ""),
    ("workers.resources", {"limits": {"cpu": 0.5}}, "0.5 is not a string; put it in quotes", ""),
    ("workers.resources", {"limits": {"cpu": 2**63}}, "is not a string; put it in quotes", ""),
    ("metadata.name", "Big_Name", "Big_Name does not have the form", ""),
    ("metadata.name", "n" * 53, "has more than the 52 characters allowed", ""),
    ("placement.levels", "rack", "rack is not a list", "Node label keys"),
    ("model.attention.softCap", 0, "0 is not more than 0", "Bound c of the scores"),
    ("parallelism.innerRing", 0, "0 is less than the least allowed, 1", ""),
    ("training.recompute", "outputs", "outputs is none of auto, none, attention, output", "Did you mean output?"),
]

_GPU_CLUSTER = {"workers.gpusPerNode": 8, "workers.nodes": 2, "workers.volumes": [STORAGE]}
_ODD_HEADS = {"layers": 2, "hidden": 64, "heads": 4, "kvHeads": 3, "feedForward": 8}

BROKEN_RULES: list[tuple[dict[str, Any], str, str, str]] = [
    (
        {"model": {"preset": "tiny-1m", "hf": "/m"}},
        "model",
        "preset and hf given, but it takes exactly one of preset, architecture, hf",
        "Give one of",
    ),
    ({"model": {}}, "model", "none given, but it takes exactly one of", "Give one of"),
    (
        {"model": {"architecture": _ODD_HEADS}},
        "model.architecture.kvHeads",
        "3 does not divide heads 4",
        "Take one of 1, 2, 4.",
    ),
    (
        {"model": {"architecture": {**_ODD_HEADS, "kvHeads": 2, "hidden": 66}}},
        "model.architecture.hidden",
        "66 is not divisible by heads 4",
        "Set headDim, or take hidden 64.",
    ),
    (
        {"model": {"architecture": {**_ODD_HEADS, "kvHeads": 2, "headDim": 15}}},
        "model.architecture.headDim",
        "15 is odd, but rotary positions turn pairs",
        "Take 16.",
    ),
    (
        {"context": {"length": 8192, "rope": {"type": "yarn", "factor": 2, "originalLength": 2048}}},
        "context.rope.factor",
        "2 x originalLength 2,048 = 4,096 positions, but context.length is 8,192",
        "Raise factor to 4.",
    ),
    (
        {"context.rope": {"type": "yarn", "factor": 2}},
        "context.rope.originalLength",
        "is missing; yarn needs it",
        "Give the length trained on",
    ),
    ({"context.rope": {"factor": 2}}, "context.rope", "have no effect with type default", "Set type"),
    (
        {"parallelism": {"context": 4, "ulysses": 3}},
        "parallelism.ulysses",
        "3 does not divide context 4",
        "Take one of 1, 2, 4.",
    ),
    (
        {"parallelism": {"context": 8, "ulysses": 8}},
        "parallelism.ulysses",
        "8 does not divide heads 4",
        "Take one of 1, 2, 4 that divides context.",
    ),
    (
        {
            "model": {"architecture": {"layers": 1, "hidden": 48, "heads": 12, "kvHeads": 4, "feedForward": 8}},
            "parallelism": {"context": 6, "ulysses": 6},
        },
        "parallelism.ulysses",
        "6 neither divides kvHeads 4 nor is a multiple of them",
        "Take one of 1, 2, 4, 12 that divides context.",
    ),
    (
        {"parallelism": {"context": 8, "ulysses": 2, "innerRing": 3}},
        "parallelism.innerRing",
        "3 does not divide the ring, context 8 / ulysses 2 = 4",
        "Take one of 1, 2, 4, or leave it out.",
    ),
    (
        {"workers.gpusPerNode": 2, "workers.processesPerNode": 3},
        "workers.processesPerNode",
        "3 processes beside gpusPerNode 2",
        "Leave processesPerNode out",
    ),
    ({"workers.env": [{"name": "RANK", "value": "1"}]}, "workers.env[0].name", "RANK is set by", "Take another"),
    ({"workers.env": [{"name": "RING_POD", "value": "1"}]}, "workers.env[0].name", "is set by", "Take another"),
    (
        {"workers.env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
        "workers.env[1].name",
        "A is given more than once",
        "Keep one",
    ),
    ({"workers.env": [{"name": "A"}]}, "workers.env[0]", "exactly one of value, valueFrom", "Give one"),
    (
        {"workers.env": [{"name": "A", "valueFrom": {}}]},
        "workers.env[0].valueFrom",
        "exactly one of secretKeyRef, configMapKeyRef",
        "Give one",
    ),
    (
        {"workers.volumes": [{"name": "a", "mountPath": "/a"}]},
        "workers.volumes[0]",
        "exactly one of persistentVolumeClaim, emptyDir, configMap, secret, projected",
        "Give one",
    ),
    (
        {"workers.volumes": [STORAGE, {**STORAGE, "mountPath": "/b"}]},
        "workers.volumes[1].name",
        "storage is that of volumes[0] already",
        "Take another one.",
    ),
    (
        {"workers.volumes": [STORAGE, {**STORAGE, "name": "b", "mountPath": "/checkpoints/"}]},
        "workers.volumes[1].mountPath",
        "/checkpoints is that of volumes[0] already",
        "Take another one.",
    ),
    (
        {"workers.volumes": [{**STORAGE, "mountPath": "/dev/shm/x"}]},
        "workers.volumes[0].mountPath",
        "/dev/shm/x collides with /dev",
        "Take another path.",
    ),
    (
        {"workers.volumes": [{**STORAGE, "mountPath": "/a/../b"}]},
        "workers.volumes[0].mountPath",
        "/a/../b has //, . or .. in it",
        "Write the path out.",
    ),
    (
        {"workers.volumes": [{**STORAGE, "name": "ring-tmp"}]},
        "workers.volumes[0].name",
        "names with ring- are the operator's own",
        "Take another name.",
    ),
    (
        {"workers.volumes": [{"name": "p", "mountPath": "/p", "projected": {"sources": [{}]}}]},
        "workers.volumes[0].projected.sources[0]",
        "exactly one of secret, configMap",
        "Give one",
    ),
    (
        {"workers.tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
        "workers.tolerations[0].value",
        "no meaning with operator Exists",
        "Leave it out",
    ),
    ({"workers.tolerations": [{"value": "b"}]}, "workers.tolerations[0].key", "is missing", "Give the key."),
    (
        {"workers.tolerations": [{"key": "a", "tolerationSeconds": 3}]},
        "workers.tolerations[0].tolerationSeconds",
        "only with effect NoExecute",
        "Leave it out.",
    ),
    (
        {**_GPU_CLUSTER, "workers.resources": {"limits": {"nvidia.com/gpu": 8}}},
        "workers.resources.limits[nvidia.com/gpu]",
        "nvidia.com/gpu is set by workers.gpusPerNode",
        "Leave it out",
    ),
    (
        {"workers.rdma": {"resource": "rdma/hca"}, "workers.resources": {"requests": {"rdma/hca": 1}}},
        "workers.resources.requests[rdma/hca]",
        "rdma/hca is set by workers.rdma.count",
        "Leave it out",
    ),
    (
        {"data.source": {"path": "a", "builtin": "python-stdlib"}},
        "data.source",
        "path and builtin given, but it takes exactly one of",
        "Give one of",
    ),
    (
        {"data.source": {"jsonl": {"path": "a"}, "include": ["*.py"]}},
        "data.source",
        "include and exclude choose files of path or builtin",
        "Leave them out.",
    ),
    ({"data.prepared": "/a//x"}, "data.prepared", "/a//x has //, . or .. in it", "Write the path out."),
    ({"data.prepared": "/tmp/x"}, "data.prepared", "/tmp/x collides with /tmp", "Take another path."),
    (
        {"data.heldOut": {"fraction": 0}},
        "evaluation.heldOut",
        "true, but data.heldOut.fraction is 0",
        "Set it to false",
    ),
    (
        {"evaluation.samplePrompt": "a"},
        "evaluation.samplePrompt",
        "no effect with sampleTokens 0",
        "Set sampleTokens",
    ),
    (
        {"training.schedule": {"warmupSteps": 11}},
        "training.schedule.warmupSteps",
        "11 is more than steps 10",
        "Lower it to 1.",
    ),
    ({"checkpoint.resume": "newest"}, "checkpoint.resume", "'newest' is neither latest nor none", "Take latest"),
    ({"checkpoint.path": "/"}, "checkpoint.path", "/ collides with /etc/ring", "Take another path."),
    ({"checkpoint.path": "/a/./b"}, "checkpoint.path", "has //, . or .. in it", "Write the path out."),
    (
        {"workers.volumes": [{**STORAGE, "readOnly": True}]},
        "checkpoint.path",
        "/checkpoints is in volume storage, which cannot be written",
        "Mount a persistentVolumeClaim over /checkpoints",
    ),
    (
        {"workers.nodes": 3},
        "checkpoint.path",
        "/checkpoints is in no volume, but 3 pods must share it",
        "Mount a persistentVolumeClaim",
    ),
    (
        {"workers.nodes": 3, "workers.volumes": [{"name": "e", "mountPath": "/checkpoints", "emptyDir": {}}]},
        "checkpoint.path",
        "in volume e, which each pod has for itself, but 3 pods must share it",
        "Mount a persistentVolumeClaim",
    ),
    (
        {"workers.nodes": 3, "workers.volumes": [STORAGE], "data.prepared": "/data"},
        "data.prepared",
        "/data is in no volume, but 3 pods must share it",
        "Mount a persistentVolumeClaim over /data",
    ),
    (
        {
            "workers.volumes": [{"name": "c", "mountPath": "/c", "configMap": {"name": "x"}}],
            "data.prepared": "/c/d",
        },
        "data.prepared",
        "/c/d is in volume c, which cannot be written",
        "Mount a persistentVolumeClaim over /c/d",
    ),
    (
        {"model": {"architecture": {"layers": 1, "hidden": 8, "heads": 2, "feedForward": 8, "vocabulary": 256}}},
        "model.architecture.vocabulary",
        "256, but the tokenizer bytes has 257 tokens",
        "Raise it to 257",
    ),
    ({"model.attention": {"window": 9}}, "model.attention.window", "9 has no effect", "put window into"),
    (
        {"model.attention": {"pattern": ["window"], "chunk": 9}},
        "model.attention.chunk",
        "9 has no effect",
        "put chunk into",
    ),
    (
        {"model.attention": {"pattern": ["full", "chunk"], "globalTokens": 16}},
        "model.attention.globalTokens",
        "16 has no effect: no layer of the pattern is of the kind window",
        "put window into",
    ),
    (
        {"training.probe": {"rows": 8}},
        "training.probe.rows",
        "8 has no effect with everySteps 0",
        "set everySteps",
    ),
    ({"context.stripe": 8}, "context.stripe", "8 has no effect with layout zigzag", "set layout to striped"),
    (
        {"training.schedule": {"kind": "constant", "finalRatio": 0.5}},
        "training.schedule.finalRatio",
        "0.5 has no effect with kind constant",
        "take kind cosine",
    ),
]

UNKNOWN_FIELDS: list[tuple[str, str, str]] = [
    ("context.lenght", "is not a field", "Did you mean length?"),
    ("contxt", "is not a field", "Did you mean context?"),
    ("context.gpus_per_node", "is not a field", "The fields here are length, layout, stripe, rope."),
    ("workers.gpus_per_node", "is not a field", "Did you mean gpusPerNode?"),
    ("training.learningRate", "is not a field", "The fields here are steps, batch"),
    ("steps", "is not a field here", "Did you mean spec.training.steps?"),
    ("training.lr", "is not a field here", "Did you mean spec.training.optimizer.lr?"),
    ("workers.volumes", "is not a field", "Did you mean mountPath?"),
]


def unknown_field(place: str) -> dict[str, Any]:
    """The change that writes an unknown field at a place."""
    return {place: [{**STORAGE, "mountpath": "x"}] if place == "workers.volumes" else 1}
