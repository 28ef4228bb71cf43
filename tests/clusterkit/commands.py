"""The command lines of the control plane. Pure: from settings, ports and files to arguments."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clusterkit.certificates import KeyPair

ENDPOINT_CONTROLLERS = ("endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller")
NODE_TTL = "ttl-controller"  # writes to every node, again whenever their number passes some mark


@dataclass(frozen=True, slots=True)
class Settings:
    """What a test may choose.

    `address`: where the API server listens and is reached. `prefix`: a command that runs the programs elsewhere
    (`nsenter --net=...`). `endpoint_slices` off: for pods at loopback addresses, which those controllers refuse over
    and over. `taint_new_nodes`: as everywhere, new ones take no pods until a controller has seen that they are Ready;
    without it, nodes made by the thousand take pods at once. `node_grace_seconds`: a node that has not reported for so
    long is lost; simulated nodes never report.
    `extra`: further flags by component, which win over those here.
    """

    kubernetes: str | None = None
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    service_cidr: str = "10.96.0.0/16"
    endpoint_slices: bool = True
    taint_new_nodes: bool = False
    node_grace_seconds: int = 24 * 3600
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    runtime_config: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def hosts(self) -> list[str]:
        """Under what the API server is reached: from here, and from pods by its service."""
        service = str(ipaddress.ip_network(self.service_cidr)[1])
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        return [*dict.fromkeys([*names, "kubernetes.default.svc.cluster.local", "127.0.0.1", self.address, service])]


@dataclass(frozen=True, slots=True)
class Ports:
    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int


@dataclass(frozen=True, slots=True)
class Files:
    """`server`: serving certificate of all; `kubelet_client`: the API server's towards kubelets."""

    folder: Path
    authority: KeyPair
    server: KeyPair
    kubelet_client: KeyPair
    service_accounts: KeyPair
    audit_policy: Path

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    def kubeconfig(self, name: str) -> Path:
        return self.folder / f"{name}.kubeconfig"


AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]},
        {"level": "Metadata"},
    ],
}


def etcd(ports: Ports, files: Files) -> list[str]:
    """Data that no one needs after a crash of the machine is not synced to the disk."""
    client, peer = f"http://127.0.0.1:{ports.etcd}", f"http://127.0.0.1:{ports.etcd_peer}"
    return [
        f"--data-dir={files.folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver(settings: Settings, ports: Ports, files: Files) -> list[str]:
    loopback = ipaddress.ip_address(settings.address).is_loopback
    return [
        f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
        f"--secure-port={ports.apiserver}",
        f"--bind-address={settings.address}",
        f"--advertise-address={settings.address}",
        # No endpoint may be a loopback address, so then the service `kubernetes` has none.
        f"--endpoint-reconciler-type={'none' if loopback else 'lease'}",
        *_serving(files),
        f"--client-ca-file={files.authority.certificate}",
        # There is no proxy in front; but the others ask for its authority, again and again.
        f"--requestheader-client-ca-file={files.authority.certificate}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        f"--kubelet-client-certificate={files.kubelet_client.certificate}",
        f"--kubelet-client-key={files.kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={files.service_accounts.key}",
        f"--service-account-key-file={files.service_accounts.certificate}",
        f"--service-cluster-ip-range={settings.service_cidr}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        *([] if settings.taint_new_nodes else ["--disable-admission-plugins=TaintNodesByCondition"]),
        "--allow-privileged=true",  # so that it is Pod Security that refuses them
        f"--audit-policy-file={files.audit_policy}",
        f"--audit-log-path={files.audit_log}",
        "--audit-log-maxsize=500",
        "--profiling=false",
        *_gates(settings),
        *([f"--runtime-config={','.join(settings.runtime_config)}"] if settings.runtime_config else []),
    ]


def controller_manager(settings: Settings, ports: Ports, files: Files) -> list[str]:
    off = [NODE_TTL, *(() if settings.endpoint_slices else ENDPOINT_CONTROLLERS)]
    return [
        *_client(files, "kube-controller-manager"),
        f"--secure-port={ports.controller_manager}",
        f"--controllers={','.join(['*', *(f'-{name}' for name in off)])}",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={files.service_accounts.key}",
        f"--root-ca-file={files.authority.certificate}",
        f"--cluster-signing-cert-file={files.authority.certificate}",
        f"--cluster-signing-key-file={files.authority.key}",
        f"--node-monitor-grace-period={settings.node_grace_seconds}s",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        *_gates(settings),
    ]


def scheduler(settings: Settings, ports: Ports, files: Files) -> list[str]:
    return [
        *_client(files, "kube-scheduler"),
        f"--secure-port={ports.scheduler}",
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
        *_gates(settings),
    ]


def _client(files: Files, name: str) -> list[str]:
    kubeconfig = files.kubeconfig(name)
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        *_serving(files),
    ]


def _serving(files: Files) -> list[str]:
    return [f"--tls-cert-file={files.server.certificate}", f"--tls-private-key-file={files.server.key}"]


def _gates(settings: Settings) -> list[str]:
    gates = ",".join(f"{name}={str(on).lower()}" for name, on in sorted(settings.feature_gates.items()))
    return [f"--feature-gates={gates}"] if gates else []
