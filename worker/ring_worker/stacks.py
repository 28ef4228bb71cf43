"""A rank's end of `/stacks`: on a signal, write the Python stacks of all threads to a descriptor from the agent.

faulthandler does it in C, inside the signal handler, and needs neither the interpreter's lock nor memory: so a rank
answers while it hangs in a collective. The signal is one that the kernel ignores by default: a rank that is asked
before it has registered (it is importing torch, say) lives on.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Mapping

from ring_worker.contract import ENV_STACKS

STACKS_SIGNAL = signal.SIGURG


def answer_for_stacks(environment: Mapping[str, str]) -> None:
    """From now on. Without a descriptor, or with one that is not open, nothing happens when asked."""
    try:
        descriptor = int(environment.get(ENV_STACKS, ""))
        os.set_inheritable(descriptor, False)
    except (OSError, ValueError):
        return
    faulthandler.register(STACKS_SIGNAL, file=descriptor, all_threads=True)
