"""Every name that the operator gives: API, objects, labels, annotations, paths inside a pod.

Names are functions of the job's name, of the pod's number and of how often it was replaced, and of nothing else, so
that whether an object exists can be asked without memory, and creating it twice is harmless.
"""

from __future__ import annotations

GROUP = "ringtraining.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "RingTrainingJob"
PLURAL = "ringtrainingjobs"
OPERATOR = f"{GROUP}/operator"

LABEL_JOB = f"{GROUP}/job"
LABEL_POD_INDEX = f"{GROUP}/pod-index"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_NAME = "app.kubernetes.io/name"
MANAGER = "ring-training-operator"
APPLICATION = "ring-training-job"
ANNOTATION_EPOCH = f"{GROUP}/epoch"
ANNOTATION_HASH = f"{GROUP}/hash"  # of the manifest, so that whether it is to be applied again is told at a look
ANNOTATION_PINNED = f"{GROUP}/pinned-at"  # on a pod: when the operator chose its node
ANNOTATION_RESTART = f"{GROUP}/restart"  # on a job, by a person: a value not seen before asks for a restart

GATE = f"{GROUP}/placement"  # keeps the scheduler off a pod until its node is chosen

# A pod's name is also its host name, of at most 63 characters. Eleven are left for -16383-r999: the number of the last
# pod there can be, and 999 replacements of it; pods of smaller numbers can be replaced ten times as often for each
# digit that they are shorter.
JOB_NAME_MAX = 52

STATUS_PORT = 8471
AGENT_CONTAINER = "agent"
PREPARE_CONTAINER = "prepare"
CONFIG_KEY = "run.json"
RANKS_KEY = "ranks.json"

# Where the parts of the seam are mounted in a pod. Users' volumes keep clear of RESERVED_PATHS.
CONFIG_PATH = "/etc/ring/config"
RANKS_PATH = "/etc/ring/ranks"
POD_INFO_PATH = "/etc/ring/pod"
RESERVED_PATHS = ("/etc/ring", "/dev", "/proc", "/sys", "/tmp")
RESERVED_ENV = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "POD_IP",
    "OMP_NUM_THREADS",
)
RESERVED_ENV_PREFIX = "RING_"
GPU_RESOURCE = "nvidia.com/gpu"


def config_map(job: str) -> str:
    """The ConfigMap that holds the RunConfig."""
    return f"{job}-config"


def ranks_map(job: str) -> str:
    """The ConfigMap that holds the RankTable, published after the pods are bound."""
    return f"{job}-ranks"


def stacks_map(job: str) -> str:
    """The ConfigMap that keeps what every rank was doing when the job last hung."""
    return f"{job}-stacks"


def pod(job: str, index: int, attempt: int = 0) -> str:
    """A pod that replaces another has a name of its own, so that creating either twice is harmless.

    The letter keeps the names of jobs apart: a-0-1 is pod 1 of the job a-0, never a second pod 0 of the job a.
    """
    return f"{job}-{index}-r{attempt}" if attempt else f"{job}-{index}"


def subdomain(job: str) -> str:
    """The headless service under which the pods have DNS names."""
    return job


def network_policy(job: str) -> str:
    """Who may speak to the pods."""
    return job


def disruption_budget(job: str) -> str:
    """Whether the pods may be evicted."""
    return job


def job_labels(job: str) -> dict[str, str]:
    """Labels of everything that belongs to the job; also the selector of its pods."""
    return {LABEL_JOB: job, LABEL_NAME: APPLICATION, LABEL_MANAGED_BY: MANAGER}


def pod_labels(job: str, index: int, attempt: int = 0) -> dict[str, str]:
    return {**job_labels(job), LABEL_POD_INDEX: str(index), LABEL_ATTEMPT: str(attempt)}
