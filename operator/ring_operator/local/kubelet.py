"""A miniature kubelet: one pod's volumes and processes on this machine.

Init containers run one after the other, then the one container that stays. `poll` never blocks, so that one loop can
look after all pods. Each process has a session of its own (a Ctrl-C at the terminal is for `ringctl` alone) and is
tethered to `ringctl`: start it from the main thread.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ring_operator import names
from ring_operator.errors import refuse
from ring_operator.local.files import last_lines, size_of, write_whole
from ring_operator.local.pod import Container, Pod, Volume, field_of
from ring_worker.contract import ENV_STATUS_ADDRESS

_ERROR_LINES = 40
_LOCAL = "127.0.0.1"
_PORTS = range(20000, 32768)  # below the ranges from which systems number their connections


@dataclass(frozen=True, slots=True)
class Machine:
    """What all pods of a run share. `config_maps`: name -> files. `logs`: folder."""

    config_maps: dict[str, dict[str, str]]
    logs: Path


class PodProcess:
    """One pod, which may be started again when it has ended. `devices`: the GPUs it may see; None: as inherited."""

    def __init__(self, pod: Pod, machine: Machine, devices: Sequence[str] | None = None) -> None:
        self.pod = pod
        self.address = ""
        self.started = time.monotonic()
        self._machine = machine
        self._devices = devices
        self._annotations = dict(pod.annotations)
        self._log_begin = 0  # bytes of the log before the container that runs
        self._waiting: list[Container] = []
        self._current: Container | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.pod.name

    @property
    def preparing(self) -> bool:
        return self._current not in self.pod.containers

    @property
    def log(self) -> Path:
        """Of the container that runs, or ran last."""
        container = self._current.name if self._current else names.AGENT_CONTAINER
        return self._machine.logs / f"{self.name}.{container}.log"

    @property
    def pid(self) -> int | None:
        """Of the container that runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Begin anew: fresh volumes, all containers from the first."""
        self.kill()
        self.address = f"{_LOCAL}:{free_port()}"
        for volume, folder in self.pod.volumes:
            if volume.kind != "here":
                shutil.rmtree(folder, ignore_errors=True)
            self._materialise(volume, folder)
        self._waiting = [*self.pod.init_containers, *self.pod.containers]
        self._next()

    def poll(self) -> int | None:
        """The exit code of the pod once it has ended, None while it lives. Starts what is next."""
        assert self._process is not None, "poll before start"
        code = self._process.poll()
        if code == 0 and self._waiting:
            self._next()
            return None
        return code

    def error(self) -> str:
        """The last lines of the container that ended; its earlier starts wrote into the same log."""
        return last_lines(self.log, _ERROR_LINES, begin=self._log_begin)

    def publish(self, config_map: str) -> None:
        """Show a ConfigMap as it is now in the volumes that mount it."""
        for volume, folder in self.pod.volumes:
            if volume.kind == "configMap" and volume.source == config_map:
                self._materialise(volume, folder)

    def annotate(self, key: str, value: str) -> None:
        """Set an annotation and show it in the downward-API files."""
        self._annotations[key] = value
        for volume, folder in self.pod.volumes:
            if volume.kind == "downwardAPI":
                self._materialise(volume, folder)

    def terminate(self) -> None:
        """SIGTERM to the main process of the container, as a kubelet sends it."""
        self._waiting = []
        if self.pid is not None and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; what it started dies with it. Returns when it is gone."""
        self._waiting = []
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _next(self) -> None:
        self._current = container = self._waiting.pop(0)
        self.started = time.monotonic()
        self._log_begin = size_of(self.log)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ring_worker.tether", str(os.getpid()), *container.command],
                env={**os.environ, **self._environment(container)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment(self, container: Container) -> Mapping[str, str]:
        environment = {**dict(container.environment), "PYTHONUNBUFFERED": "1"}
        if ENV_STATUS_ADDRESS in environment:
            environment[ENV_STATUS_ADDRESS] = self.address
        if self._devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._devices)
        return environment

    def _materialise(self, volume: Volume, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in self._contents(volume).items():
            write_whole(folder / file, text)

    def _contents(self, volume: Volume) -> dict[str, str]:
        if volume.kind == "configMap":
            return self._machine.config_maps.get(volume.source, {})
        if volume.kind != "downwardAPI":
            return {}
        metadata = {
            "name": self.name,
            "annotations": self._annotations,
            "labels": dict(self.pod.labels),
        }
        return {file: field_of(metadata, path) for file, path in volume.items}


def free_port() -> int:
    """A free TCP port of the loopback, outside the range from which connections get theirs.

    One from inside it, as port 0 would give, any connection may take before the process that is told of it listens.
    """
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_LOCAL, port))
            return port
    raise refuse("", f"no port between {_PORTS.start} and {_PORTS.stop - 1} is free on this machine")
