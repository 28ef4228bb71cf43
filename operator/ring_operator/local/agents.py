"""Ask an agent for its status, over the loopback."""

from __future__ import annotations

import http.client

from ring_worker.contract import AgentStatus, ContractError

_ANSWER_SECONDS = 1.0


def ask(address: str) -> AgentStatus | None:
    """The status of the agent at `host:port`; None where it does not answer, or with something else."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/status")
        return AgentStatus.from_json(connection.getresponse().read().decode())
    except (OSError, http.client.HTTPException, UnicodeDecodeError, ContractError):
        return None
    finally:
        connection.close()
