"""The log of one pod of a job, by its number: to its end or, followed, over broken connections and replacements.

Every line is asked for with the time at which it was printed, so that after a break the reading goes on behind the last
line that was read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from ring_operator import names
from ring_operator.cli.remote.log_lines import Selection, Stamped, last, second_of, selected, stamped
from ring_operator.remote.errors import NotFoundError, RefusedError, UnreachableError
from ring_operator.remote.jobs import Jobs
from ring_operator.remote.objects import JobSeen, PodSeen

LOOK_SECONDS = 2.0
Line = tuple[str, str]  # pod's name, text


class PodStream:
    """`pod`: the one to begin with. `note`: for what is to be said beside the log."""

    def __init__(
        self, jobs: Jobs, job: JobSeen, pod: PodSeen, selection: Selection, note: Callable[[str], None]
    ) -> None:
        self._jobs = jobs
        self._job = job
        self._pod: PodSeen | None = pod
        self._index, self._name = pod.facts.index, pod.facts.name
        self._selection = selection
        self._note = note
        self._said = ""
        self._newest = ""  # time of the last line that was read of this pod

    def history(self) -> Iterator[Line]:
        """What there is now. Raises UnreachableError where the pod's node does not answer."""
        pod = self._pod
        if pod is None:
            return
        if not self._has_log(pod):
            self._say(f"{pod.facts.name} has printed nothing yet: {pod.phase}")
            return
        lines = selected(self._lines(pod, self._selection.server_tail), self._selection)
        for line in last(lines, self._selection.tail):
            yield pod.facts.name, line.text

    def followed(self) -> Iterator[Line]:
        """What there is and what comes, of this pod and those that replace it, until the job ends or is deleted."""
        yield from self._patiently(self.history)
        while True:
            pod = self._pod
            has_log = pod is not None and self._has_log(pod)
            if has_log:
                yield from self._patiently(self._coming)
            if self._job_is_over() and (pod is None or pod.facts.ended or not has_log):
                return
            time.sleep(LOOK_SECONDS)
            self._look_again()

    def _coming(self) -> Iterator[Line]:
        """Lines after the newest, until the container ends."""
        assert self._pod is not None
        pod = self._pod
        since = {"sinceTime": second_of(self._newest)} if self._newest else {}
        for line in selected(self._lines(pod, {"follow": "true", **since}), self._selection):
            yield pod.facts.name, line.text

    def _lines(self, pod: PodSeen, query: dict[str, Any]) -> Iterator[Stamped]:
        """New lines: those of the second in which the reading broke off are given again, and left out."""
        container = names.PREPARE_CONTAINER if self._wants_preparation(pod) else names.AGENT_CONTAINER
        before = self._newest
        try:
            for text in self._jobs.log(pod, container, timestamps="true", **query):
                line = stamped(text)
                if not line.time or line.time > before:
                    self._newest = max(self._newest, line.time)
                    yield line
        except (NotFoundError, RefusedError) as error:  # gone, or not so far as it seemed
            self._say(f"{pod.facts.name}: {error.faults[0].message}")

    def _wants_preparation(self, pod: PodSeen) -> bool:
        return self._selection.prepare or pod.phase == "PrepareFailed"

    def _has_log(self, pod: PodSeen) -> bool:
        if self._wants_preparation(pod):
            return pod.agent_began or pod.facts.ended or pod.phase == "Preparing"
        return pod.agent_began

    def _patiently(self, read: Callable[[], Iterator[Line]]) -> Iterator[Line]:
        """A node or API server that is away for a while is said, and no end."""
        try:
            yield from read()
        except UnreachableError as error:
            if not error.again:
                raise
            self._say(f"trying again: {error.faults[0].message}")

    def _look_again(self) -> None:
        """A replacement has a log of its own."""
        pods = self._asked(lambda: self._jobs.pods(self._job))
        if pods is None:
            return
        self._pod = next((pod for pod in pods if pod.facts.index == self._index), None)
        if self._pod is not None and self._pod.facts.name != self._name:
            self._say(f"{self._name} was replaced by {self._pod.facts.name}")
            self._name, self._newest = self._pod.facts.name, ""

    def _job_is_over(self) -> bool:
        job = self._asked(lambda: (self._jobs.find(self._job.name),))
        if job is None:
            return False
        return job[0] is None or job[0].uid != self._job.uid or job[0].has_ended

    def _asked(self, question: Callable[[], Any]) -> Any:
        """None where there is no answer now."""
        try:
            return question()
        except UnreachableError as error:
            if not error.again:
                raise
            self._say(f"trying again: {error.faults[0].message}")
            return None

    def _say(self, text: str) -> None:
        """The same once."""
        if text != self._said:
            self._said = text
            self._note(text)
