"""How the agents of one job would behave, without any training. Pure: every event gives a new `FakeJob`.

In: pods that come and go, rank tables, faults, the time. Out: what each pod's agent says at `GET /status`. It keeps to
what real agents do: training begins when every member of the table is in the epoch; a rank that breaks, or a pod that
goes, breaks the others a moment later; the next epoch resumes from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from ring_worker.contract import AgentState, AgentStatus, ExitCode, Member, MetricsLine, RankTable

STEP_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Course:
    """How training goes. `steps` None: until the test says so. A checkpoint after every `checkpoint_every` steps."""

    steps: int | None = None
    step_seconds: float = 0.1
    checkpoint_every: int = 10


@dataclass(frozen=True, slots=True)
class Failure:
    rank: int
    exit_code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class FakeAgent:
    """`since`: when the epoch began here. `checkpoint_step`: of the epochs before, if this pod was there; -1: none."""

    since: float
    epoch: int = 0
    state: AgentState = AgentState.WAITING
    checkpoint_step: int = -1
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class FakeJob:
    """`agents`: by pod, of pods that run. `training_since`: when the last member came; None: some are missing.

    `halted_at`: no step after that. `resumed_from`: the step that this epoch goes on from. Times are monotonic seconds.
    """

    uid: str
    course: Course
    table: RankTable | None = None
    agents: Mapping[str, FakeAgent] = field(default_factory=dict)
    resumed_from: int = 0
    training_since: float | None = None
    halted_at: float | None = None

    def status(self, pod: str, now: float) -> AgentStatus:
        """Of a pod in `agents`."""
        agent = self.agents[pod]
        failure = agent.failure
        trained = self._trained(agent)
        return AgentStatus(
            pod=pod,
            job_uid=self.uid,
            epoch=agent.epoch,
            state=agent.state.value,
            step=self.last_step(now) if trained else -1,
            progress_age_seconds=max(0.0, now - self._last_progress(agent, now)),
            checkpoint_step=max(agent.checkpoint_step, self._new_checkpoint(now) if trained else -1),
            failed_rank=failure.rank if failure else None,
            exit_code=failure.exit_code if failure else None,
            error=failure.error if failure else "",
            metrics=self._metrics(now) if trained and self._has_rank_0(pod) else None,
        )

    def last_step(self, now: float) -> int:
        """The last one that was finished in this epoch; -1: none."""
        done = self._steps_done(now)
        return self.resumed_from + done if done else -1

    def checkpoint(self, now: float) -> int:
        """What the next epoch resumes from."""
        return max(self.resumed_from, self._new_checkpoint(now))

    @property
    def ends_at(self) -> float | None:
        """When the last step will be done; None where nothing leads there."""
        if self.course.steps is None or self.training_since is None or self.halted_at is not None:
            return None
        return self.training_since + max(0, self.course.steps - self.resumed_from) * self.course.step_seconds

    def with_pod(self, pod: str, now: float) -> Self:
        """Its agent has started."""
        if pod in self.agents:
            return self
        agents = {**self.agents, pod: self._joined(FakeAgent(since=now), pod, now)}
        return replace(self, agents=agents)._started(now)

    def without_pod(self, pod: str, now: float) -> Self:
        """Its agent is gone; where it was training, the others lose their peer."""
        if pod not in self.agents:
            return self
        trained = self.agents[pod].state == AgentState.RUNNING
        left = replace(self, agents={name: agent for name, agent in self.agents.items() if name != pod})
        return left._broken({}, now) if trained else left

    def with_table(self, table: RankTable, now: float) -> Self:
        """A new epoch for everyone, from the last checkpoint. An old table, or another job's, changes nothing."""
        if table.job_uid != self.uid or (self.table is not None and table.epoch <= self.table.epoch):
            return self
        kept = {
            pod: replace(agent, checkpoint_step=self.status(pod, now).checkpoint_step)
            for pod, agent in self.agents.items()
        }
        fresh = replace(
            self, table=table, resumed_from=self.checkpoint(now), training_since=None, halted_at=None, agents=kept
        )
        joined = {pod: fresh._joined(agent, pod, now) for pod, agent in kept.items()}
        return replace(fresh, agents=joined)._started(now)

    def with_broken_rank(self, rank: int, exit_code: int, error: str, now: float) -> Self:
        """That rank ends; the ranks of other pods end for want of a peer. Raises ValueError where nobody runs it."""
        member = next((m for m in self._members() if m.first_rank <= rank < m.first_rank + m.ranks), None)
        if member is None or member.pod not in self.agents:
            raise ValueError(f"no running pod has rank {rank}")
        return self._broken({member.pod: Failure(rank, exit_code, error)}, now)

    def hung(self, now: float) -> Self:
        """All ranks stand still, and every agent goes on saying so."""
        return self if self.halted_at is not None else replace(self, halted_at=now)

    def succeeded(self, now: float) -> Self:
        """Every rank of this epoch has ended with 0."""
        agents = {
            pod: replace(agent, state=AgentState.SUCCEEDED) if agent.state == AgentState.RUNNING else agent
            for pod, agent in self.agents.items()
        }
        return replace(self.hung(now), agents=agents)

    def _members(self) -> tuple[Member, ...]:
        return self.table.members if self.table else ()

    def _joined(self, agent: FakeAgent, pod: str, now: float) -> FakeAgent:
        if self.table is None or self.table.epoch <= agent.epoch:
            return agent
        state = AgentState.RUNNING if self.table.member(pod) else AgentState.WAITING
        return replace(agent, epoch=self.table.epoch, state=state, since=now, failure=None)

    def _started(self, now: float) -> Self:
        """Training begins when the last member is there."""
        if self.table is None or self.training_since is not None or self.halted_at is not None:
            return self
        present = (self.agents.get(member.pod) for member in self.table.members)
        complete = all(agent and agent.state == AgentState.RUNNING for agent in present)
        return replace(self, training_since=now) if complete else self

    def _broken(self, failures: Mapping[str, Failure], now: float) -> Self:
        """`failures`: of the pods that broke first. Every other member lost its peer."""
        lost = {
            member.pod: Failure(member.first_rank, ExitCode.INFRASTRUCTURE, "lost a peer") for member in self._members()
        }
        causes = {**lost, **failures}
        agents = {
            pod: replace(agent, state=AgentState.BROKEN, failure=causes[pod])
            if agent.state == AgentState.RUNNING and pod in causes
            else agent
            for pod, agent in self.agents.items()
        }
        return replace(self.hung(now), agents=agents)

    def _has_rank_0(self, pod: str) -> bool:
        member = self.table.member(pod) if self.table else None
        return member is not None and member.first_rank == 0

    def _metrics(self, now: float) -> MetricsLine | None:
        """Of the last step; every step is logged."""
        step, seconds = self.last_step(now), self.course.step_seconds
        if step < 0 or self.table is None:
            return None
        return MetricsLine(
            step=step,
            total_steps=self.course.steps or step,
            loss=1 + 4 / step,
            lr=1e-3,
            grad_norm=1.0,
            tokens=step * STEP_TOKENS,
            seconds=step * seconds,
            tokens_per_second=STEP_TOKENS / seconds,
            epoch=self.table.epoch,
            rings=(),
        )

    def _trained(self, agent: FakeAgent) -> bool:
        """Whether it was there when this epoch's training began; a pod that is made anew reads the old table."""
        if self.training_since is None or agent.state == AgentState.WAITING:
            return False
        return agent.since <= self.training_since

    def _steps_done(self, now: float) -> int:
        if self.training_since is None:
            return 0
        until = now if self.halted_at is None else min(now, self.halted_at)
        done = max(0, int((until - self.training_since) / self.course.step_seconds + 1e-9))
        return done if self.course.steps is None else min(done, max(0, self.course.steps - self.resumed_from))

    def _new_checkpoint(self, now: float) -> int:
        """Of this epoch; -1: none. The last step has one as well."""
        step = self.last_step(now)
        saved = step if step == self.course.steps else step - step % self.course.checkpoint_every
        return saved if step > 0 and saved > self.resumed_from else -1

    def _last_progress(self, agent: FakeAgent, now: float) -> float:
        done = self._steps_done(now)
        if not done or self.training_since is None or not self._trained(agent):
            return agent.since
        return self.training_since + done * self.course.step_seconds


def stacks(status: AgentStatus) -> str:
    """The page of `/stacks`, as short as it gets."""
    return f"pod {status.pod} epoch {status.epoch} {status.state}\n\nno ranks run: this one is simulated\n"
