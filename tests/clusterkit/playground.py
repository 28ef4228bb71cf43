"""`make cluster`: a control plane with simulated nodes to play with, until Ctrl-C. Then nothing of it is left.

Prints the kubeconfig and what to do next. `--nodes` says how many nodes; pods on them are played by kwok.
"""

from __future__ import annotations

import argparse
import math
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from clusterkit import nodes
from clusterkit.binaries import BuildError
from clusterkit.certificates import CertificateError
from clusterkit.commands import Settings
from clusterkit.component import ComponentError
from clusterkit.control_plane import ControlPlane
from clusterkit.kubectl import Kubectl, KubectlError
from clusterkit.kwok import kwok
from clusterkit.nodes import Grid
from clusterkit.progress import say_on_stderr

MANIFESTS = Path(__file__).parents[2] / "manifests"
INSTALLED = ("crd", "rbac")
NODES_IN_A_RACK = 4


def install(kubectl: Kubectl) -> list[str]:
    """Apply what `manifests/` has for a cluster, in order. Gives the names of the folders."""
    present = [name for name in INSTALLED if (MANIFESTS / name).is_dir()]
    for name in present:
        folder = MANIFESTS / name
        how = "--kustomize" if (folder / "kustomization.yaml").exists() else "--filename"
        kubectl("apply", "--server-side", f"{how}={folder}")
    return present


def play(count: int) -> None:
    """Until it is interrupted. Always a control plane of its own: nodes like these have no place in another cluster."""
    settings = Settings(endpoint_slices=False)
    with ControlPlane(settings) as plane, kwok(plane.kubeconfig, plane.files.folder):
        racks = max(1, math.ceil(count / NODES_IN_A_RACK))
        nodes.create(plane.kubeconfig, nodes.grid(Grid(racks=racks, nodes=NODES_IN_A_RACK))[:count])
        print(_welcome(plane, count, install(plane.kubectl)), flush=True)
        signal.pause()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m clusterkit.playground", description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=8, metavar="N", help="simulated nodes of 8 GPUs (default: 8)")
    count = parser.parse_args(arguments).nodes
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        play(count)
    except KeyboardInterrupt:
        say_on_stderr("stopped; nothing is left of it")
    except (BuildError, CertificateError, ComponentError, KubectlError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _welcome(plane: ControlPlane, count: int, installed: Sequence[str]) -> str:
    kubectl = "kubectl" if shutil.which("kubectl") else str(plane.kubectl.program)
    lines = [
        "",
        f"A control plane with {count} simulated nodes is up. In another terminal:",
        "",
        f"    export KUBECONFIG={plane.kubeconfig}",
        f"    {kubectl} get nodes -L fabric.topograph.run/tier-0",
    ]
    lines += [f"    {kubectl} apply -f manifests/samples/quickstart.yaml"] if "crd" in installed else []
    return "\n".join([*lines, "", f"Logs: {plane.files.folder}. Ctrl-C ends it and leaves nothing.", ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
