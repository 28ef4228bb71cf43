"""A real Kubernetes control plane for tests: `with ControlPlane() as plane: plane.kubectl("get", "pods")`.

In: settings. Out: etcd, kube-apiserver, kube-controller-manager and kube-scheduler on free ports, with certificates of
their own, the Node and RBAC authorizers, Pod Security, NodeRestriction and an audit log; a kubeconfig of an
administrator; and each program as a `Component` that can be killed, frozen and started again.

Nothing is left behind: the programs die with this process, and their folder goes with the context, unless one is given,
which keeps the logs.
"""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from clusterkit import commands, kubeconfigs
from clusterkit.binaries import binary
from clusterkit.certificates import Authority
from clusterkit.commands import Files, Ports, Settings
from clusterkit.component import Component
from clusterkit.kubectl import Kubectl
from clusterkit.ports import free_ports
from clusterkit.progress import Say, say_on_stderr

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
ANSWER_SECONDS = 2.0


class ControlPlane:
    """`folder`: where data, logs and kubeconfigs go; by default a temporary one, which is removed at the end."""

    etcd: Component
    apiserver: Component
    controller_manager: Component
    scheduler: Component

    def __init__(self, settings: Settings | None = None, folder: Path | None = None, say: Say = say_on_stderr) -> None:
        self.settings = settings or Settings()
        self._say = say
        self._given = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.components: tuple[Component, ...] = ()

    def __enter__(self) -> ControlPlane:
        binaries = {name: binary(name, self.settings.kubernetes, self._say) for name in PROGRAMS}
        try:
            self._prepare(binaries)
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill everything at once: there is nothing to save."""
        for component in reversed(self.components):
            component.kill()
        if self._temporary is not None:
            self._temporary.cleanup()
        elif self._given is not None:
            shutil.rmtree(self._given / "etcd", ignore_errors=True)

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.files.kubeconfig("admin")

    @property
    def server(self) -> str:
        return f"https://{self.settings.address}:{self.ports.apiserver}"

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """As a user by certificate; whatever groups are asked for, such as `system:nodes`."""
        pair = self._authority.client(user, groups)
        document = kubeconfigs.with_certificate(self.server, self._authority.certificate, pair)
        return kubeconfigs.write(self.files.kubeconfig(pair.certificate.stem), document)

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self._kubectl, self.kubeconfig, self.files.folder / "kubectl")

    def audit(self, user: str | None = None) -> Iterator[dict[str, Any]]:
        """Every request that was answered so far: who, what, when, with which code; of all users or of one."""
        with self.files.audit_log.open() as log:
            entries = (json.loads(line) for line in log if line.endswith("\n"))
            yield from (entry for entry in entries if user in (None, entry["user"].get("username")))

    def _prepare(self, binaries: dict[str, Path]) -> None:
        """Everything on disk that the programs read."""
        if self._given is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="ring-control-plane-")
        folder = self._given or Path(self._temporary.name if self._temporary else "")
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = Authority(folder / "certificates")
        self.ports = Ports(*free_ports(5))
        self.files = Files(
            folder,
            self._authority.pair,
            self._authority.server("server", self.settings.hosts),
            self._authority.client("kube-apiserver-kubelet-client", ["system:masters"]),
            self._authority.signing_key("service-accounts"),
            folder / "audit-policy.yaml",
        )
        self.files.audit_policy.write_text(yaml.safe_dump(commands.AUDIT_POLICY))
        self._write_kubeconfigs()
        self._make_components(binaries)

    def _write_kubeconfigs(self) -> None:
        for name, user, groups in (
            ("admin", "ring-test-admin", ["system:masters"]),
            ("kube-controller-manager", "system:kube-controller-manager", []),
            ("kube-scheduler", "system:kube-scheduler", []),
        ):
            pair = self._authority.client(user, groups)
            document = kubeconfigs.with_certificate(self.server, self._authority.certificate, pair)
            kubeconfigs.write(self.files.kubeconfig(name), document)

    def _make_components(self, binaries: dict[str, Path]) -> None:
        settings, ports, files = self.settings, self.ports, self.files
        self._kubectl = binaries["kubectl"]
        admin = self._authority.client("ring-test-probe", ["system:masters"])
        context = ssl.create_default_context(cafile=str(self._authority.certificate))
        context.load_cert_chain(admin.certificate, admin.key)

        def component(name: str, arguments: list[str], url: str) -> Component:
            command = [*settings.prefix, str(binaries[name]), *arguments, *settings.extra.get(name, ())]
            return Component(name, command, files.folder / f"{name}.log", answers(url, context))

        local = "https://127.0.0.1"
        self.etcd = component("etcd", commands.etcd(ports, files), f"http://127.0.0.1:{ports.etcd}/readyz")
        self.apiserver = component(
            "kube-apiserver", commands.apiserver(settings, ports, files), f"{self.server}/readyz"
        )
        self.controller_manager = component(
            "kube-controller-manager",
            commands.controller_manager(settings, ports, files),
            f"{local}:{ports.controller_manager}/healthz",
        )
        self.scheduler = component(
            "kube-scheduler", commands.scheduler(settings, ports, files), f"{local}:{ports.scheduler}/healthz"
        )
        self.components = (self.etcd, self.apiserver, self.controller_manager, self.scheduler)

    def _start(self) -> None:
        """The first two at once; the others give up where there is no API server."""
        self.etcd.launch()
        self.apiserver.launch()
        self.etcd.wait_ready()
        self.apiserver.wait_ready()
        self.controller_manager.launch()
        self.scheduler.launch()
        self.controller_manager.wait_ready()
        self.scheduler.wait_ready()


def answers(url: str, context: ssl.SSLContext) -> Callable[[], bool]:
    """Whether `url` gives 200."""

    https = urllib.request.HTTPSHandler(context=context)
    opener = urllib.request.build_opener(https, urllib.request.ProxyHandler({}))

    def ask() -> bool:
        try:
            with opener.open(url, timeout=ANSWER_SECONDS) as response:
                return int(response.status) == 200
        except (OSError, http.client.HTTPException):  # urllib's own errors are among the first
            return False

    return ask
