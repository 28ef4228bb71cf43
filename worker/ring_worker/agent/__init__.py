"""One agent in each pod (`python -m ring_worker.agent`): ranks up, down, and up again, without the pod ending.

In: the RunConfig, and a file with the rank table that the operator writes anew for each *epoch* (one start of the
ranks). Out: `/status`, `/metrics` and `/stacks` over HTTP, the ranks' output with a prefix, an exit code.

The idea: a failure ends an epoch, never the pod. When a rank dies the agent kills the pod's other ranks at once (they
would hang in a collective till a time-out), reports `broken`, and waits for the next epoch. No container restart and no
image pull stand between a failure and the next start. The agent decides nothing about retries: it has no memory but the
last epoch, so a new agent in a new pod is as good as the old one.

No torch in here: an agent must start in a moment, and outlive any fault of a rank.
"""
