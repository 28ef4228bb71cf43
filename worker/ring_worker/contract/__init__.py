"""The seam between the operator and the worker: what one writes and the other reads.

`RunConfig` says what to train; it is written once for a job. `RankTable` says who takes part in one *epoch* (one start
of the ranks) and in which order; it is written anew at every start, because ranks follow where the pods really are.
Exit codes, `AgentStatus` and `MetricsLine` carry the outcome back.

Every document is versioned and read strictly (`strict.py`). Only the standard library is imported here: the operator's
environment has no torch, and the agent must start in a moment.
"""

from ring_worker.contract.codes import (
    ENV_AFTER_EPOCH,
    ENV_CONFIG,
    ENV_EPOCH,
    ENV_POD,
    ENV_RANKS,
    ENV_RESTARTS,
    ENV_STACKS,
    ENV_STATUS_ADDRESS,
    ENV_TELEMETRY,
    ENV_TOKEN,
    ExitCode,
    likely_cause,
)
from ring_worker.contract.rank_table import Master, Member, RankTable
from ring_worker.contract.reports import AgentState, AgentStatus, MetricsLine, PreparationProgress, RingFigures
from ring_worker.contract.run_config import (
    AttentionPattern,
    Checkpoint,
    Context,
    Data,
    Degrees,
    Evaluation,
    Model,
    Optimizer,
    Probe,
    Rope,
    RunConfig,
    Schedule,
    Source,
    Training,
)
from ring_worker.contract.strict import VERSION, ContractError

__all__ = [
    "ENV_AFTER_EPOCH",
    "ENV_CONFIG",
    "ENV_EPOCH",
    "ENV_POD",
    "ENV_RANKS",
    "ENV_RESTARTS",
    "ENV_STACKS",
    "ENV_STATUS_ADDRESS",
    "ENV_TELEMETRY",
    "ENV_TOKEN",
    "VERSION",
    "AgentState",
    "AgentStatus",
    "AttentionPattern",
    "Checkpoint",
    "Context",
    "ContractError",
    "Data",
    "Degrees",
    "Evaluation",
    "ExitCode",
    "Master",
    "Member",
    "MetricsLine",
    "Model",
    "Optimizer",
    "PreparationProgress",
    "Probe",
    "RankTable",
    "RingFigures",
    "Rope",
    "RunConfig",
    "Schedule",
    "Source",
    "Training",
    "likely_cause",
]
