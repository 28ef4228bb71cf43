"""What the test cluster is built from: programs, the Go modules they come from, their versions. Pure.

In: a program's name and, for Kubernetes, a version. Out: a `Program`, which says what to build and how.

Kubernetes cannot be installed by `go install`: its go.mod points at folders beside it (`./staging/...`), which a module
that depends on it does not have. The same code is published as modules of its own, so `go_mod` replaces each of them.
The versions go into the programs at link time: without them Kubernetes takes itself for 0.0 and gets feature gates
wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

KUBERNETES_VERSIONS = {"1.37": "v1.37.2", "1.36": "v1.36.3"}
DEFAULT_KUBERNETES = "1.37"
GO_AT_LEAST = (1, 26, 6)

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")
REAL_NODES = ("kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr")


@dataclass(frozen=True, slots=True)
class Source:
    """A Go module at one version. `packages`: program -> the Go package of its main function. `link`: `-X` settings."""

    name: str
    module: str
    version: str
    packages: Mapping[str, str]
    link: Mapping[str, str]

    @property
    def label(self) -> str:
        return f"{self.name}-{self.version}"


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    source: Source

    @property
    def package(self) -> str:
        return self.source.packages[self.name]

    @property
    def link_flags(self) -> str:
        return " ".join(["-s -w", *(f"-X {key}={value}" for key, value in self.source.link.items())])


def kubernetes(version: str) -> Source:
    """`version`: vMAJOR.MINOR.PATCH."""
    major, minor, _ = version.removeprefix("v").split(".")
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet", "kube-proxy")
    facts = "k8s.io/component-base/version"
    return Source(
        "kubernetes",
        "k8s.io/kubernetes",
        version,
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in names},
        {f"{facts}.gitVersion": version, f"{facts}.gitMajor": major, f"{facts}.gitMinor": minor},
    )


ETCD = Source("etcd", "go.etcd.io/etcd/server/v3", "v3.7.3", {"etcd": "go.etcd.io/etcd/server/v3"}, {})
KWOK = Source(
    "kwok",
    "sigs.k8s.io/kwok",
    "v0.8.0",
    {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
    {"sigs.k8s.io/kwok/pkg/consts.Version": "v0.8.0"},
)
CONTAINERD = Source(
    "containerd",
    "github.com/containerd/containerd/v2",
    "v2.4.2",
    {
        name: f"github.com/containerd/containerd/v2/cmd/{name}"
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
    {"github.com/containerd/containerd/v2/version.Version": "v2.4.2"},
)
HELM = Source("helm", "helm.sh/helm/v4", "v4.3.1", {"helm": "helm.sh/helm/v4/cmd/helm"}, {})
_OTHERS = (ETCD, KWOK, CONTAINERD, HELM)


def kubernetes_version(wanted: str) -> str:
    """`1.36`, `1.36.3` or `v1.36.3` -> `v1.36.3`. Raises ValueError."""
    known = {alias: full for minor, full in KUBERNETES_VERSIONS.items() for alias in (minor, full, full[1:])}
    if wanted not in known:
        raise ValueError(f"Kubernetes {wanted!r} is not one of {', '.join(KUBERNETES_VERSIONS)}")
    return known[wanted]


def program(name: str, kubernetes_wanted: str = DEFAULT_KUBERNETES) -> Program:
    """Raises ValueError for a name or a version that is not known."""
    sources = (kubernetes(kubernetes_version(kubernetes_wanted)), *_OTHERS)
    for source in sources:
        if name in source.packages:
            return Program(name, source)
    names = sorted(name for source in sources for name in source.packages)
    raise ValueError(f"{name!r} is no program of the test cluster; there are {', '.join(names)}")


def go_mod(source: Source, its_go_mod: str) -> str:
    """The go.mod of a module that only builds `source`'s programs. `its_go_mod`: what `source` itself says."""
    go = re.search(r"^go (\S+)$", its_go_mod, re.MULTILINE)
    staged = sorted(set(re.findall(r"(\S+) => \./staging/", its_go_mod)))
    lines = ["module tools", "", f"go {go[1] if go else '1.26'}", "", f"require {source.module} {source.version}", ""]
    published = source.version.replace("v1.", "v0.", 1)
    lines += [f"replace {module} => {module} {published}" for module in staged]
    return "\n".join(lines) + "\n"
