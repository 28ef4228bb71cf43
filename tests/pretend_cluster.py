"""A cluster in memory for tests of the pure reconcile: acts change pods, time goes by, agents play their part."""

from __future__ import annotations

import dataclasses
from typing import Any

from ring_operator import names
from ring_operator.observe.pods import PodFacts, pod_facts, timestamp_of
from ring_operator.placement import Ground
from ring_operator.plan import machines_of, plan
from ring_operator.reconcile.cluster import reconcile
from ring_operator.reconcile.view import (
    Answer,
    Apply,
    CollectStacks,
    Create,
    Delete,
    DeleteJob,
    Fresh,
    Identity,
    Outcome,
    Pin,
    Publish,
    Remove,
    Stamp,
    Tell,
    View,
    with_hash_apart,
)
from ring_operator.render import children, cluster_place, pinned
from ring_operator.spec import TrainingJob
from ring_operator.status.document import JobStatus
from ring_operator.topology import Level, Site, Topology
from ring_worker.contract import AgentState, AgentStatus, RankTable

UID = "uid-1"


class PretendCluster:
    """`status` survives everything, as on the API server; `reconcile` is called afresh each time."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.now = 1_000_000.0
        self.status = JobStatus()
        self.pods: dict[str, dict[str, Any]] = {}
        self.agents: dict[str, AgentStatus] = {}
        self.mute: dict[str, float] = {}  # pod -> since when its agent does not answer
        self.children: dict[tuple[str, str], str] = {}
        self.table: RankTable | None = None
        self.tables: list[RankTable] = []
        self.unready: set[str] = set()
        self.sites = tuple(Site(f"node-{i}", (f"rack-{i // 4}",)) for i in range(64))
        self.busy: set[str] = set()  # nodes that others use
        self.stolen: set[str] = set()  # nodes that others take while they are being chosen
        self.restart = ""
        self.told: list[Tell] = []
        self.stacks: list[CollectStacks] = []
        self.deleted = False
        self.uids = 0
        self.crash_after: int | None = None  # acts that are still carried out before the operator dies

    def facts(self) -> tuple[PodFacts, ...]:
        return tuple(facts for raw in self.pods.values() if (facts := pod_facts(raw)) is not None)

    def view(self) -> View:
        made = plan(self.job, machines_of(self.job.spec))
        place = cluster_place(self.job, UID, "worker:1")
        pods = self.facts()
        answers = {
            name: Answer(status, self._silence(name)) for name, status in self.agents.items() if name in self.pods
        }
        return View(
            identity=Identity(UID, "team", self.job.name, 1, restart_request=self.restart),
            job=self.job,
            plan=made,
            place=place,
            wanted_children=children(self.job, made, place),
            status=self.status,
            now=self.now,
            fresh=Fresh("token", 29500),
            pods=pods,
            agents=answers,
            unready=frozenset(self.unready & {pod.node for pod in pods}),
            children=dict(self.children),
            table=self.table,
            published_at=self.now,
            ground=self._ground,
        )

    def _ground(self, kept: frozenset[str], avoided: frozenset[str]) -> Ground:
        dying = {p.node for p in self.facts() if p.deleting_since}
        gone = {*self.busy, *self.unready, *avoided, *dying, *self.job.spec.placement.exclude_nodes} - kept
        topology = Topology((Level("rack"),), self.sites)
        return Ground(topology, tuple(site for site in self.sites if site.name not in gone), f"{len(gone)} are in use")

    def _silence(self, name: str) -> float:
        return self.now - self.mute[name] if name in self.mute else 0.0

    def look(self) -> Outcome:
        """One reconcile, carried out; the status is on record before the acts."""
        outcome = reconcile(self.view())
        self.status = JobStatus.model_validate(outcome.status.model_dump(by_alias=True))
        for act in outcome.acts:
            if self.crash_after is not None:
                if self.crash_after == 0:
                    self.crash_after = None
                    return outcome
                self.crash_after -= 1
            self._carry_out(act)
        return outcome

    def _carry_out(self, act: object) -> None:
        match act:
            case Apply(manifest):
                identity, digest = with_hash_apart(manifest)
                self.children[identity] = digest
            case Remove(kind, name):
                del self.children[kind, name]
            case Publish(table, _):
                assert not self.tables or table.epoch > self.tables[-1].epoch, "an epoch was published twice"
                self.table = table
                self.tables.append(table)
            case Create(manifest):
                self._create(manifest)
            case Pin(name, node, now):
                self._pin(name, pinned(node, now))
            case Delete(name, uid, grace):
                self._delete(name, uid, grace)
            case Stamp(name, epoch):
                self.pods[name]["metadata"]["annotations"][names.ANNOTATION_EPOCH] = str(epoch)
            case CollectStacks():
                self.stacks.append(act)
            case Tell():
                self.told.append(act)
            case DeleteJob():
                self.deleted = True

    def _create(self, manifest: dict[str, Any]) -> None:
        name = manifest["metadata"]["name"]
        if name not in self.pods:
            self.uids += 1
            metadata = {**manifest["metadata"], "namespace": "team", "uid": f"pod-{self.uids}"}
            metadata["annotations"] = dict(metadata["annotations"])
            self.pods[name] = {"metadata": metadata, "spec": dict(manifest["spec"]), "status": {"phase": "Pending"}}

    def _pin(self, name: str, patch: dict[str, Any]) -> None:
        raw = self.pods.get(name)
        if raw is not None:
            raw["metadata"]["annotations"].update(patch["metadata"]["annotations"])
            raw["spec"] = {**raw["spec"], **patch["spec"]}

    def _delete(self, name: str, uid: str, grace: int | None) -> None:
        if name in self.pods and self.pods[name]["metadata"]["uid"] == uid:
            if grace == 0:
                self.remove(name)
            else:
                self.pods[name]["metadata"]["deletionTimestamp"] = timestamp_of(self.now)

    def remove(self, name: str) -> None:
        self.pods.pop(name, None)
        self.agents.pop(name, None)
        self.mute.pop(name, None)

    def settle(self, looks: int = 12) -> None:
        """Let everything that is under way happen: binding, starting, dying, taking up tables."""
        for _ in range(looks):
            self.look()
            self.step()

    def step(self) -> None:
        """What kubelets, scheduler and agents do in a second."""
        self.now += 1
        for name, raw in list(self.pods.items()):
            if raw["metadata"].get("deletionTimestamp") and raw["spec"].get("nodeName") not in self.unready:
                self.remove(name)
            elif raw["status"]["phase"] == "Pending" and not raw["spec"].get("schedulingGates"):
                self._bind(name, raw)
            elif raw["status"]["phase"] == "Running" and name not in self.mute:
                self._take_up(name)

    def _bind(self, name: str, raw: dict[str, Any]) -> None:
        """To the one node that it may run on, else to the first that is free. Gated pods are let be."""
        facts = pod_facts(raw)
        able = [facts.pinned] if facts and facts.pinned else [site.name for site in self.sites]
        out = {*self.busy, *self.stolen, *self.unready, *self._taken(), *_avoided(raw)}
        if node := next((node for node in able if node not in out), None):
            self._start(name, raw, node)

    def _taken(self) -> set[str]:
        return {raw["spec"].get("nodeName", "") for raw in self.pods.values()}

    def _start(self, name: str, raw: dict[str, Any], node: str) -> None:
        raw["spec"]["nodeName"] = node
        running = {"name": names.AGENT_CONTAINER, "state": {"running": {"startedAt": timestamp_of(self.now)}}}
        address = f"10.0.0.{len(self.agents)}"
        raw["status"] = {"phase": "Running", "podIP": address, "containerStatuses": [running]}
        self.agents[name] = AgentStatus(name, UID, 0, AgentState.WAITING.value, -1, 0.0, -1)

    def _take_up(self, name: str) -> None:
        agent, table = self.agents[name], self.table
        if table is not None and table.epoch > agent.epoch and table.member(name) is not None:
            agent = dataclasses.replace(
                agent, epoch=table.epoch, state=AgentState.RUNNING.value, progress_age_seconds=0.0, failed_rank=None
            )
            self.agents[name] = agent

    def end(self, name: str, exit_code: int, **status: Any) -> None:
        """A pod's containers end."""
        state = {"terminated": {"exitCode": exit_code}}
        phase = "Failed" if exit_code else "Succeeded"
        ended = [{"name": names.AGENT_CONTAINER, "state": state}]
        self.pods[name]["status"] = {"phase": phase, "containerStatuses": ended, **status}

    def report(self, name: str, **changes: Any) -> None:
        """An agent says something else."""
        self.agents[name] = dataclasses.replace(self.agents[name], **changes)

    def lose(self, node: str) -> list[str]:
        """A node goes away with everything on it. The pods that were there."""
        self.unready.add(node)
        lost = [name for name, raw in self.pods.items() if raw["spec"].get("nodeName") == node]
        for name in lost:
            self.mute[name] = self.now
        return lost


def _avoided(raw: dict[str, Any]) -> set[str]:
    affinity = raw["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
    fields = [field for term in terms for field in term.get("matchFields", [])]
    return {value for field in fields if field["operator"] == "NotIn" for value in field["values"]}
