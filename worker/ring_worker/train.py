"""One rank, from its start to its exit code: `python -m ring_worker.train`, which the agent runs.

Meet, build, resume, train, report. Every rank takes the same way through the loop, since what a step decides is agreed
on in the step; rank 0 alone writes the journal, the report and the picture. A step's line is in the journal before its
checkpoint is complete, and lines after a checkpoint are dropped on resume, so the journal tells one history whatever is
killed when.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

from ring_worker.attention.transport import TransportError
from ring_worker.build import Parts, build
from ring_worker.checkpoint import CheckpointError, Progress, progress_of, training_state
from ring_worker.contract import (
    ENV_CONFIG,
    ENV_TELEMETRY,
    ContractError,
    ExitCode,
    MetricsLine,
    RingFigures,
    RunConfig,
)
from ring_worker.data.errors import DataError
from ring_worker.errors import ConfigError, DivergedError
from ring_worker.evaluate import held_out_bits_per_byte
from ring_worker.finish import write_results
from ring_worker.mesh import Launch, open_mesh
from ring_worker.stacks import answer_for_stacks
from ring_worker.step import StepResult, Wishes, mismatch_warning, train_step
from ring_worker.telemetry.emitter import Emitter
from ring_worker.telemetry.figures import PACKED, pack, ring_figures, unpack
from ring_worker.telemetry.journal import Journal
from ring_worker.telemetry.record import UNPROBED, AliveRecord, PassTimes, Probes, StepRecord


def main() -> int:
    """The exit code tells the agent what became of the rank; the message on stderr is for people."""
    answer_for_stacks(os.environ)
    stop = _StopOnTerm()
    try:
        return _run(_config(), stop)
    except (ConfigError, DivergedError, DataError, CheckpointError) as error:
        return _fail(error.exit_code, str(error))
    except ContractError as error:
        return _fail(ExitCode.INVALID_CONFIG, str(error))
    except (TransportError, dist.DistError, OSError) as error:
        return _fail(ExitCode.INFRASTRUCTURE, str(error))
    except torch.OutOfMemoryError as error:
        return _fail(ExitCode.NO_RESTART, f"{error}\nLower context.length, or spread it over more ranks.")
    except RuntimeError as error:
        if _lost_a_peer(error):
            return _fail(ExitCode.INFRASTRUCTURE, f"lost another rank: {error}")
        traceback.print_exc()
        return ExitCode.APPLICATION
    except Exception:
        traceback.print_exc()
        return ExitCode.APPLICATION


def _config() -> RunConfig:
    """Raises ConfigError or ContractError."""
    path = os.environ.get(ENV_CONFIG, "")
    try:
        return RunConfig.from_json(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{ENV_CONFIG}={path!r}: {error.strerror}. Ranks are started by the agent.") from None


def _run(config: RunConfig, stop: _StopOnTerm) -> ExitCode:
    torch.set_num_threads(config.threads)
    mesh = open_mesh(Launch.from_environment(os.environ), config.degrees, config.device)
    run = Run(build(config, mesh), stop, Emitter(os.environ.get(ENV_TELEMETRY)))
    run.resume()
    stop.wait_for_the_step()
    return ExitCode.TERMINATED if run.go() else ExitCode.DONE


def _fail(code: ExitCode, message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    return code


def _lost_a_peer(error: RuntimeError) -> bool:
    """Gloo raises plain RuntimeErrors; its own source file stands in each of them."""
    return "gloo" in str(error).lower()


class _StopOnTerm:
    """SIGTERM ends a rank at once while there is nothing to save; then it asks for a checkpoint after the step."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, lambda *_: os._exit(ExitCode.TERMINATED))

    def wait_for_the_step(self) -> None:
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


@dataclass(slots=True)
class Run:
    """The loop of one rank over the steps of one epoch."""

    parts: Parts
    stop: _StopOnTerm
    emitter: Emitter
    progress: Progress = field(init=False)
    _saved_at: float = field(default_factory=time.monotonic)
    _unlogged: tuple[PassTimes, PassTimes] = (PassTimes(), PassTimes())  # forward, backward since the last line
    _probes: Probes = UNPROBED  # since then
    _logged: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = self._logged = Progress(text=self.parts.text)

    def go(self) -> bool:
        """Train what is left. Whether it was stopped before the end."""
        while self.progress.step < self.parts.config.training.steps:
            result = self.step()
            stopping = result.wishes.stop and self.progress.step < self.parts.config.training.steps
            held_out = None if stopping else self.evaluate()
            saving = self._due_to_save(result)
            self.log(result, held_out, always=saving)
            if saving:
                self.save()
            if stopping:
                return True
        if self.parts.mesh.leads:
            write_results(self.parts, self.journal, self.alive)
        return False

    @property
    def journal(self) -> Journal:
        return Journal(Path(self.parts.config.output) / "metrics.jsonl")

    def alive(self) -> None:
        self.emitter.send(AliveRecord(self.parts.mesh.launch.rank))

    def resume(self) -> None:
        """Load the checkpoint to go on from, and cut the journal back to it."""
        found = self._checkpoint_to_resume()
        if found is not None:
            self._load(found)
        self._logged = self.progress
        if self.parts.mesh.leads:
            Path(self.parts.config.output).mkdir(parents=True, exist_ok=True)
            self.journal.truncate_after(self.progress.step)
            print(f"step {self.progress.step} of {self.parts.config.training.steps}: training starts", flush=True)

    def _checkpoint_to_resume(self) -> int | Path | None:
        """What `checkpoint.resume` says holds until this job has a checkpoint of its own."""
        resume, checkpoints = self.parts.config.checkpoint.resume, self.parts.checkpoints
        if resume == "latest":
            return checkpoints.latest()
        own = checkpoints.latest(own=True)
        if own is not None:
            return own
        return None if resume == "none" else Path(resume)

    def _load(self, found: int | Path) -> None:
        state = training_state(self.parts.model, self.parts.optimizer, self.progress)
        self.parts.checkpoints.load(found, state)
        self.progress = progress_of(state)
        steps, text = self.parts.config.training.steps, self.parts.text
        if isinstance(found, Path):
            if self.progress.step >= steps:
                raise ConfigError(
                    f"checkpoint.resume: {found} is of step {self.progress.step}, but training.steps is {steps}. "
                    f"Raise it to more than {self.progress.step}."
                )
        elif self.progress.text != text:
            raise ConfigError(
                f"data: the checkpoint of step {found} was trained on another text than the one that is there now. "
                "Restore the text, or start a new run from that checkpoint with checkpoint.resume: its path."
            )
        self.progress = replace(self.progress, text=text)

    def step(self) -> StepResult:
        result = train_step(
            self.parts, self.progress, lambda: Wishes(stop=self.stop.asked, save=self._minutes_are_over())
        )
        config = self.parts.config
        self.progress = replace(
            self.progress,
            step=self.progress.step + 1,
            sequences=self.progress.sequences + config.training.batch,
            tokens=self.progress.tokens + config.training.batch * config.context.length,
            seconds=self.progress.seconds + result.seconds,
        )
        if warning := mismatch_warning(self.progress.step, result.watch):
            print(warning, file=sys.stderr, flush=True)
        self._emit(result)
        return result

    def _minutes_are_over(self) -> bool:
        minutes = self.parts.config.checkpoint.every_minutes
        return self.parts.mesh.leads and 0 < minutes * 60 <= time.monotonic() - self._saved_at

    def _emit(self, result: StepResult) -> None:
        forward, backward = self.parts.ring.meter.take()
        self._unlogged = (self._unlogged[0] + forward, self._unlogged[1] + backward)
        self._probes += result.probes
        mesh, config = self.parts.mesh, self.parts.config
        sequences = config.training.batch // config.degrees.data
        self.emitter.send(
            StepRecord(
                rank=mesh.launch.rank,
                ring=mesh.ring,
                position=mesh.position,
                step=self.progress.step,
                tokens=sequences * self.parts.ring.tokens,
                seconds=result.seconds,
                loss=result.loss,
                grad_norm=result.grad_norm,
                lr=result.lr,
                forward=forward,
                backward=backward,
                probes=result.probes,
            )
        )

    def evaluate(self) -> float | None:
        """Bits per byte of held-out text where this step is due: of a part, and of all of it after the last."""
        config, step = self.parts.config, self.progress.step
        if not config.evaluation.held_out or not self.parts.dataset.held_out_sequences:
            return None
        if step == config.training.steps:
            return held_out_bits_per_byte(self.parts, self.alive)
        if config.evaluation.every_steps and step % config.evaluation.every_steps == 0:
            return held_out_bits_per_byte(self.parts, self.alive, config.evaluation.sequences)
        return None

    def log(self, result: StepResult, held_out: float | None, always: bool) -> None:
        """A line for each logged step; `always` for one that is saved, so that no figure is lost by a resume."""
        training, step = self.parts.config.training, self.progress.step
        if step % training.log_every_steps and held_out is None and not always:
            return
        rings = self._rings()
        seconds = self.progress.seconds - self._logged.seconds
        line = MetricsLine(
            step=step,
            total_steps=training.steps,
            loss=result.loss,
            lr=result.lr,
            grad_norm=result.grad_norm,
            tokens=self.progress.tokens,
            seconds=self.progress.seconds,
            tokens_per_second=(self.progress.tokens - self._logged.tokens) / seconds,
            epoch=self.parts.mesh.launch.epoch,
            rings=rings,
            heldout_bits_per_byte=held_out,
        )
        self._logged = self.progress
        if self.parts.mesh.leads:
            self.journal.append(line)
            self.emitter.send_line(line)

    def _rings(self) -> tuple[RingFigures, ...]:
        """Each ring's figures since the last line, from all its ranks."""
        mesh = self.parts.mesh
        times, probes = self._unlogged, self._probes
        numbers = [*pack(times[0]), *pack(times[1]), probes.rows, probes.mismatches]
        own = torch.tensor(numbers, dtype=torch.float64)
        gathered = [torch.empty_like(own) for _ in range(mesh.launch.world_size)]
        dist.all_gather(gathered, own, group=mesh.world)
        self._unlogged, self._probes = (PassTimes(), PassTimes()), UNPROBED
        size = mesh.degrees.context
        return tuple(_figures(i, gathered[i * size : (i + 1) * size]) for i in range(mesh.degrees.rings))

    def _due_to_save(self, result: StepResult) -> bool:
        every, step = self.parts.config.checkpoint.every_steps, self.progress.step
        at_the_end = step == self.parts.config.training.steps
        return result.wishes.stop or result.wishes.save or at_the_end or (every > 0 and step % every == 0)

    def save(self) -> None:
        seconds = torch.tensor(self.progress.seconds, dtype=torch.float64)
        dist.broadcast(seconds, src=0, group=self.parts.mesh.storage)  # clocks differ; the checkpoint has one
        self.progress = replace(self.progress, seconds=float(seconds))
        state = training_state(self.parts.model, self.parts.optimizer, self.progress)
        record = self.parts.checkpoints.save(self.progress.step, state)
        self._saved_at = time.monotonic()
        if self.parts.mesh.leads:
            self.emitter.send(record)


def _figures(index: int, ranks: list[torch.Tensor]) -> RingFigures:
    rows = [rank.tolist() for rank in ranks]
    times = [(unpack(row[:PACKED]), unpack(row[PACKED : 2 * PACKED])) for row in rows]
    probed, differing = (int(sum(column)) for column in zip(*(row[2 * PACKED :] for row in rows), strict=True))
    return ring_figures(index, times, Probes(probed, differing))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not by way of destructors, which would wait for peers that are gone
