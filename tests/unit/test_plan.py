"""Degrees, ranks, rings and work: arithmetic in tables, from one process to 4,096 GPUs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job_manifests import STORAGE, job
from ring_operator.errors import UserError
from ring_operator.plan import Machines, document, machines_of, plan
from ring_operator.plan.parallel import rings_of
from ring_operator.plan.work import causal_pairs, count_weights, layer_groups
from ring_operator.spec import PRESETS, unsupported
from ring_worker.contract import Degrees


def gpus(nodes: int, per_node: int, **parallelism: object) -> dict[str, object]:
    return {
        "workers": {"nodes": nodes, "gpusPerNode": per_node, "volumes": [STORAGE]},
        "parallelism": parallelism,
        "context.length": 1_048_576,
        "training.batch": 8,
    }


def cpus(processes: int | str, **parallelism: object) -> dict[str, object]:
    return {"workers": {"gpusPerNode": 0, "processesPerNode": processes}, "parallelism": parallelism}


def planned(changes, machines=None):
    work = job(changes)
    return plan(work, machines or machines_of(work.spec))


def refused(changes, machines=None) -> str:
    with pytest.raises(UserError) as caught:
        planned(changes, machines)
    return str(caught.value)


def test_the_example_of_the_field_plans_on_4096_gpus_and_is_refused_only_by_what_is_not_built():
    changes = gpus(512, 8, data=8, tensor=8, pipeline=4, context=16)
    result = planned(changes)
    assert (result.world_size, len(result.rings), result.tokens_per_rank) == (4096, 256, 65536)
    assert result.rings[0].ranks == tuple(range(0, 128, 8))
    assert {fault.path for fault in unsupported(job(changes))} == {
        "spec.parallelism.tensor",
        "spec.parallelism.pipeline",
    }


@pytest.mark.parametrize(
    "changes, degrees",
    [
        (cpus(1), (1, 1)),
        (cpus(4, data=1), (1, 4)),
        (cpus(4, context=2) | {"training.batch": 2}, (2, 2)),
        (cpus(4, data=2, context=2) | {"training.batch": 4}, (2, 2)),
        (cpus("auto", data=1, context=4), (1, 4)),
        (cpus("auto", context=4), (1, 4)),
        (cpus(8), (1, 8)),  # 8,192 tokens feed eight ranks of 1,024
        (cpus(16) | {"training.batch": 2}, (2, 8)),  # more would starve the ring, so data gets the rest
        (cpus(16), (1, 16)),  # one sequence cannot be dealt to two: rather a starving ring than none
        (gpus(16, 8), (1, 128)),  # 8,192 tokens each on GPUs
        (gpus(64, 8), (2, 256)),  # 4,096 tokens each
        (gpus(3, 2) | {"training.batch": 3}, (1, 6)),
        (cpus(12, ulysses=2, innerRing=3) | {"training.batch": 2}, (2, 6)),  # 12 feeds the ring badly, 8 is no 2 x 3
    ],
)
def test_auto_prefers_a_ring_as_long_as_the_sequence_feeds(changes, degrees):
    result = planned(changes)
    assert (result.degrees.data, result.degrees.context) == degrees


@pytest.mark.parametrize(
    "machines, changes, ranks, context, threads",
    [
        (Machines(1, 0, 4), {"workers": {}}, 4, 4, 1),
        (Machines(1, 0, 64), {"workers": {}}, 8, 8, 8),  # no more than 8,192 tokens feed
        (Machines(1, 2, 64), {"workers": {}}, 2, 2, 8),
        (Machines(1, 0, 2), cpus(4), 4, 4, 1),
        (Machines(1, 8, 2), cpus(2), 2, 2, 1),  # gpusPerNode 0 leaves GPUs alone
        (Machines(1, 0, None), {"workers": {}}, 1, 1, 1),
    ],
)
def test_auto_takes_what_the_machine_has(machines, changes, ranks, context, threads):
    result = planned(changes, machines)
    assert (result.world_size, result.degrees.context, result.threads) == (ranks, context, threads)


def test_the_cores_of_a_pod_are_those_of_its_limit():
    result = planned(cpus(2) | {"workers.resources": {"requests": {"cpu": "2500m"}, "limits": {"cpu": 8}}})
    assert result.threads == 4


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            gpus(3, 8, context=16, tensor=8),
            "spec.parallelism.context: context 16 x tensor 8 = 128 GPUs for each replica, "
            "but workers has 3 nodes x 8 GPUs = 24\n  Lower context to 3, or raise workers.nodes to 16.",
        ),
        (
            gpus(64, 8, data=2, context=16, tensor=8),
            "spec.parallelism.context: data 2 x context 16 x tensor 8 = 256 GPUs, "
            "but workers has 64 nodes x 8 GPUs = 512\n  Raise context to 32, or lower workers.nodes to 32.",
        ),
        (
            gpus(3, 8, context=16),
            "spec.parallelism.context: context 16 = 16 GPUs for each replica, "
            "but workers has 3 nodes x 8 GPUs = 24, which 16 does not divide\n"
            "  Raise context to 24, or lower workers.nodes to 2.",
        ),
        (
            cpus(3, data=2, context=2),
            "spec.parallelism.data: data 2 x context 2 = 4 processes, but workers has 1 node x 3 processes = 3\n"
            "  Set workers.processesPerNode to 4.",
        ),
        (
            cpus(3, data=3) | {"training.batch": 4},
            "spec.training.batch: 4 sequences cannot be dealt out evenly to data 3\n"
            "  Take batch 6, or data 1 with context 3.",
        ),
        (
            cpus(4, context=4) | {"context.length": 7},
            "spec.context.length: 7 tokens over context 4 leave ranks of the zigzag layout empty: it needs 2 x 4 = 8\n"
            "  Raise it, or lower parallelism.context to 3 or less.",
        ),
        (
            cpus(4, context=4) | {"context": {"length": 255, "layout": "striped"}},
            "spec.context.length: 255 tokens over context 4 leave ranks of the striped layout empty: "
            "it needs 64 x 4 = 256\n  Raise it, or lower parallelism.context to 3 or less.",
        ),
        (cpus(6, ulysses=4), "spec.parallelism.ulysses: 4 does not divide context 6\n  Take a divisor of context."),
        (
            cpus(6, innerRing=4),
            "spec.parallelism.innerRing: 4 does not divide the ring, context 6 / ulysses 1 = 6\n"
            "  Take a divisor of it, or leave it out.",
        ),
        (
            cpus(8, context=8, ulysses=4) | {"context.length": 7},
            "spec.context.length: 7 tokens over context 8 leave ranks of the zigzag layout empty: it needs 4 x 2 = 8\n"
            "  Raise it, or lower parallelism.context to 4 or less.",
        ),
        (
            {"workers": {"nodes": 3, "volumes": [STORAGE], "gpusPerNode": 0}, "parallelism": {"data": 2, "context": 2}},
            "spec.workers.nodes: 3 nodes do not divide the 4 ranks of spec.parallelism evenly\n"
            "  Take a number of nodes that divides 4.",
        ),
        (
            {"workers.gpusPerNode": "auto"},
            "spec.workers.gpusPerNode: auto, but what the nodes have is not known here\n"
            "  Give a number: in the manifest, by --set workers.gpusPerNode=8, or by --gpus-per-node 8.",
        ),
        (
            {"model": {"hf": "/m"}},
            "spec.model.hf: the shape of a Hugging Face model is not known here\n  Take preset or architecture.",
        ),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_the_sum_and_the_way_out(changes, said):
    assert refused(changes) == said


@pytest.mark.parametrize(
    "machines, changes, said",
    [
        (Machines(1, 0), {"workers.gpusPerNode": 8}, "8 GPUs on each node, but there are 0\n  Set it to 0"),
        (Machines(1, 4), {"workers.gpusPerNode": 8}, "8 GPUs on each node, but there are 4\n  Lower it to 4"),
        (Machines(1, 8), gpus(2, 8), "spec.workers.nodes: 2 nodes, but there are 1\n  Lower it to 1."),
    ],
)
def test_machines_that_have_less_than_is_asked_for_are_refused(machines, changes, said):
    assert said in refused(changes, machines)


@given(st.builds(Degrees, *(st.integers(1, 4) for _ in range(4))))
@settings(max_examples=40)
def test_rings_hold_every_rank_once_and_ring_of_agrees(degrees):
    rings = rings_of(degrees)
    assert [ring.index for ring in rings] == list(range(degrees.rings))
    assert sorted(rank for ring in rings for rank in ring.ranks) == list(range(degrees.world_size))
    shape = {"data": degrees.data, "pipeline": degrees.pipeline, "context": degrees.context, "tensor": degrees.tensor}
    changes = cpus(degrees.world_size, **shape) | {"training.batch": degrees.data}
    result = planned(changes)
    for ring in result.rings:
        assert [result.ring_of(rank) for rank in ring.ranks] == [(ring.index, p) for p in range(degrees.context)]


def test_tensor_is_the_fastest_axis_then_context_then_data_then_pipeline():
    rings = rings_of(Degrees(data=2, pipeline=2, context=2, tensor=2))
    assert [ring.ranks for ring in rings] == [
        (0, 2), (1, 3), (4, 6), (5, 7), (8, 10), (9, 11), (12, 14), (13, 15)
    ]  # fmt: skip
    assert [(r.pipeline, r.data, r.tensor) for r in rings[:3]] == [(0, 0, 0), (0, 0, 1), (0, 1, 0)]


@pytest.mark.parametrize("kind", ["full", "window", "chunk"])
@pytest.mark.parametrize("length, reach", [(1, 1), (7, 3), (8, 4), (9, 9), (10, 1)])
def test_pairs_are_counted_as_the_mask_shows_them(kind, length, reach):
    reach = length if kind == "full" else reach
    sees = {
        "full": lambda q, k: True,
        "window": lambda q, k: q - k < reach,
        "chunk": lambda q, k: q // reach == k // reach,
    }[kind]
    brute = sum(k <= q and sees(q, k) for q in range(length) for k in range(length))
    assert causal_pairs(kind, reach, length) == brute


@pytest.mark.parametrize("length, reach, first", [(1, 1, 3), (7, 3, 2), (8, 2, 6), (9, 4, 5), (9, 4, 50), (9, 9, 2)])
def test_global_tokens_are_counted_beside_the_window_and_not_twice(length, reach, first):
    brute = sum(k <= q and (q - k < reach or k < first) for q in range(length) for k in range(length))
    assert causal_pairs("window", reach, length, first) == brute
    attention = {"pattern": ["window"], "window": reach, "globalTokens": first}
    spec = job({"model.attention": attention, "context.length": max(length, 2)}).spec
    if length > 1:
        (group,) = layer_groups(spec.model.attention, 3, length)
        most = max(sum(k <= q and (q - k < reach or k < first) for k in range(length)) for q in range(length))
        assert (group.count, group.reach, group.pairs) == (3, most, brute)


def test_sinks_are_weights_and_split_heads_make_the_blocks_of_a_ring_step():
    base = cpus(4, data=1) | {"training.precision": "fp32"}
    plain, with_sinks = planned(base), planned(base | {"model.attention.sinks": True})
    assert with_sinks.work.weights == plain.work.weights + 4 * 4  # layers x heads
    for ulysses, heads in ((2, 1), (4, 1)):  # of 2 key heads; one at least
        split = planned(cpus(4, data=1, ulysses=ulysses) | {"training.precision": "fp32"})
        assert split.work.block_bytes == 2 * heads * 32 * 4 * 8192 * ulysses // 4


@pytest.mark.parametrize(
    "preset, weights",
    [("llama-3.1-8b", 8_030_261_248), ("llama-3.2-3b", 3_212_749_824), ("llama-3.2-1b", 1_235_814_400)],
)
def test_presets_have_the_published_number_of_weights(preset, weights):
    assert count_weights(PRESETS[preset], 0) == weights


def test_the_work_of_a_step_is_counted():
    changes = cpus(2) | {"model.attention": {"pattern": ["chunk", "full"], "chunk": 256}, "training.batch": 2}
    result = planned(changes | {"training.precision": "fp32", "parallelism": {"data": 1}})
    assert [(g.kind, g.count, g.reach) for g in result.work.layers] == [("chunk", 2, 256), ("full", 2, 8192)]
    assert (result.tokens_per_step, result.tokens, result.accumulation) == (16384, 163840, 2)
    assert result.work.block_bytes == 2 * 2 * 32 * 4 * 4096  # keys and values x heads x width x fp32 x tokens
    pairs = 2 * (2 * causal_pairs("chunk", 256, 8192) + 2 * causal_pairs("full", 8192, 8192))
    assert result.work.attention_flops == 12 * 4 * 32 * pairs


@pytest.mark.parametrize("length, recompute", [(32768, "none"), (32770, "attention")])
def test_recompute_auto_is_decided_by_tokens_a_rank_and_said(length, recompute):
    result = planned(cpus(2, context=2) | {"context.length": length})
    assert result.recompute == recompute
    assert any("recompute auto became" in note for note in result.notes) == (recompute != "none")


@pytest.mark.parametrize(
    "machines, changes, note",
    [
        (Machines(1, 0, 2), cpus(4), "4 processes share 2 CPU cores of a node"),
        (None, cpus(16), "512 tokens a rank are few: below 1,024 a ring mostly waits"),
        (
            None,
            {"model.attention": {"pattern": ["window"], "window": 9000}},
            "window 9,000 covers all 8,192 tokens: its layers are full layers",
        ),
    ],
)
def test_numbers_that_will_surprise_are_said_aloud(machines, changes, note):
    assert note in planned(changes, machines).notes


def test_a_length_need_not_divide():
    result = planned(cpus(3, context=3) | {"context.length": 1000})
    assert result.tokens_per_rank == 334


def test_the_document_of_a_plan_is_json():
    result = planned(cpus(4, data=1))
    again = json.loads(json.dumps(document(result)))
    assert again["rings"] == [{"index": 0, "pipeline": 0, "data": 0, "tensor": 0, "ranks": [0, 1, 2, 3]}]
    degrees = {"data": 1, "pipeline": 1, "context": 4, "tensor": 1, "ulysses": 1, "innerRing": None}
    assert again["degrees"] == degrees
    assert "_" not in "".join(again)


_degree = st.sampled_from(["auto", 1, 2, 3, 4, 6])


@given(
    st.fixed_dictionaries({"data": _degree, "context": _degree, "pipeline": _degree, "tensor": _degree}),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(2, 40000),
    st.sampled_from([0, 1, 2, 8]),
)
def test_a_plan_adds_up_or_is_refused_in_words(parallelism, processes, batch, length, cores):
    changes = cpus("auto" if cores else processes, **parallelism) | {"training.batch": batch, "context.length": length}
    result = plan_or_faults(changes, Machines(1, 0, cores or None))
    if isinstance(result, tuple):
        assert all(f.path.startswith("spec.") and f.message and f.remedy for f in result)
        return
    assert result.world_size == result.nodes * result.ranks_per_node
    assert result.batch % result.degrees.data == 0
    assert result.length >= 2 * result.degrees.context
    for name, degree in parallelism.items():
        assert degree in ("auto", getattr(result.degrees, name))


def plan_or_faults(changes, machines):
    try:
        return planned(changes, machines)
    except UserError as error:
        return error.faults
