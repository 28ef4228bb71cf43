"""`python -m ring_operator`: the operator of a cluster."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from ring_operator import names


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="python -m ring_operator", description="Look after RingTrainingJobs.")
    parse.add_argument("--worker-image", required=True, metavar="IMAGE", help="for jobs that name none")
    parse.add_argument("--namespace", action="append", default=[], metavar="NAME", help="repeatable; default: all")
    parse.add_argument("--port", type=int, default=8080, help="of /healthz, /readyz and /metrics (%(default)s)")
    parse.add_argument("--lease-namespace", default=os.environ.get("POD_NAMESPACE", "default"), metavar="NAME")
    parse.add_argument("--lease-name", default=names.MANAGER, metavar="NAME")
    parse.add_argument("--kubeconfig", metavar="FILE", help="default: the pod's service account, else as kubectl")
    parse.add_argument("--context", metavar="NAME", help="of the kubeconfig")
    parse.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parse


async def operate(options: argparse.Namespace) -> int:
    # After the options are read, so that `--help` and wrong ones do not wait for kopf and the client.
    from ring_operator.cluster.api import connect
    from ring_operator.cluster.lease import LeaseName
    from ring_operator.handlers.operator import Operator, Settings

    holder = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"
    lease = LeaseName(options.lease_namespace, options.lease_name, holder)
    settings = Settings(options.worker_image, tuple(options.namespace), options.port, lease)
    operator = Operator(settings, await connect(options.kubeconfig, options.context))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, operator.stop)
    return await operator.run()


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf").setLevel(max(logging.INFO, logging.getLogger().level))
    from ring_operator.cluster.api import NoClusterError

    try:
        return asyncio.run(operate(options))
    except (NoClusterError, OSError) as error:
        print(f"ring-training-operator: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
