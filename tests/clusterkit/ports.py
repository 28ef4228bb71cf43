"""Free TCP ports below those that the kernel gives to outgoing connections.

A component that is restarted must find its port free again; one of the kernel's own range may have been given away.
"""

from __future__ import annotations

import random
import socket

FIRST, LAST = 15000, 32000


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Different ones, on which nothing listened a moment ago. Raises OSError where there are not so many."""
    candidates = random.sample(range(FIRST, LAST), k=LAST - FIRST)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            return found
        if _is_free(port, address):
            found.append(port)
    raise OSError(f"no {count} free ports between {FIRST} and {LAST} on {address}")


def _is_free(port: int, address: str) -> bool:
    with socket.socket() as attempt:
        try:
            attempt.bind((address, port))
        except OSError:
            return False
    return True
