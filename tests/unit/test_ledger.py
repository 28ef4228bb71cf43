"""What nodes have left: pods come and go, promises hold until they are seen or too old."""

from __future__ import annotations

import pytest

from ring_operator.cluster import ledger as module
from ring_operator.cluster.ledger import Ledger
from ring_operator.topology import Ask, Node, Usage
from ring_operator.topology.quantity import UNIT

CPU = {"cpu": 8 * UNIT}
NODES = {("", f"n{i}"): Node(f"n{i}", {}, {"cpu": 10 * UNIT}) for i in range(3)}


def free(ledger: Ledger, job: str, kept: frozenset[str] = frozenset()) -> list[str]:
    return [site.name for site in ledger.ground(job, (), Ask(CPU), kept).free]


def test_what_pods_take_is_counted_and_given_back() -> None:
    ledger = Ledger(lambda: NODES)
    usage = Usage("n1", CPU)
    ledger.pod(None, usage)
    assert free(ledger, "a/x") == ["n0", "n2"]
    assert free(ledger, "a/x", frozenset({"n1"})) == ["n1", "n0", "n2"]  # what it holds is free to it
    ledger.pod(usage, None)
    assert free(ledger, "a/x") == ["n0", "n1", "n2"]


def test_a_promise_binds_others_until_the_pod_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    ledger = Ledger(lambda: NODES)
    ledger.promise("a/x", ["n0", "n1"])
    assert free(ledger, "a/x") == ["n0", "n1", "n2"]
    assert free(ledger, "a/y") == ["n2"]
    assert "2 are promised to other jobs" in ledger.ground("a/y", (), Ask(CPU), frozenset()).why_not
    ledger.pod(None, Usage("n0", CPU, "a/x"))
    assert free(ledger, "a/y") == ["n2"]  # now since the pod is there
    now[0] += module.PROMISE_SECONDS + 1
    assert free(ledger, "a/y") == ["n1", "n2"]
    ledger.promise("a/x", ["n2"])
    ledger.forget("a/x")
    assert free(ledger, "a/y") == ["n1", "n2"]
