"""`make cluster`: a control plane with simulated nodes and the operator, until Ctrl-C. Then nothing of it is left.

Prints the kubeconfig and what to do next. `--nodes` says how many nodes. The operator is a process with its service
account's rights; kwok plays the pods, and `FakeAgents` their agents.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import signal
import sys
from collections.abc import Sequence

from clusterkit import kubeconfigs, nodes
from clusterkit.binaries import BuildError
from clusterkit.certificates import CertificateError
from clusterkit.commands import Settings
from clusterkit.component import ComponentError
from clusterkit.control_plane import ControlPlane
from clusterkit.fake_agents import FakeAgents
from clusterkit.fake_job import Course
from clusterkit.install import install
from clusterkit.kubectl import KubectlError
from clusterkit.kwok import kwok
from clusterkit.nodes import Grid
from clusterkit.operator_process import running_operator
from clusterkit.progress import say_on_stderr

OPERATOR = ("ring-system", "ring-training-operator")  # namespace and service account
NODES_IN_A_RACK = 4
COURSE = Course(steps=100, step_seconds=0.2)


def play(count: int) -> None:
    """Until it is interrupted. Always a control plane of its own: nodes like these have no place in another cluster."""
    with contextlib.ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(Settings(endpoint_slices=False)))
        folder = plane.files.folder
        stack.enter_context(kwok(plane.kubeconfig, folder))
        racks = max(1, math.ceil(count / NODES_IN_A_RACK))
        nodes.create(plane.kubeconfig, nodes.grid(Grid(racks=racks, nodes=NODES_IN_A_RACK))[:count])
        install(plane.kubectl)
        account = kubeconfigs.as_service_account(plane.kubeconfig, *OPERATOR, folder / "operator.kubeconfig")
        stack.enter_context(running_operator(account, folder))
        stack.enter_context(FakeAgents(plane.kubeconfig, COURSE))
        print(_welcome(plane, count), flush=True)
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


def _welcome(plane: ControlPlane, count: int) -> str:
    kubectl = "kubectl" if shutil.which("kubectl") else str(plane.kubectl.program)
    return f"""
A control plane with {count} simulated nodes and the operator is up. In another terminal:

    export KUBECONFIG={plane.kubeconfig}
    {kubectl} get nodes -L fabric.topograph.run/tier-0
    {kubectl} apply -f manifests/samples/quickstart.yaml
    {kubectl} get rtj -w

Nothing is trained: the agents are simulated, {COURSE.steps} steps to a job. Logs: {plane.files.folder}
Ctrl-C ends it and leaves nothing.
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
