"""Every name that the operator gives: API, objects, labels, annotations, paths inside a pod.

Names are functions of the job's name and nothing else, so that whether an object exists can be asked without memory,
and creating it twice is harmless.
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
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_NAME = "app.kubernetes.io/name"
MANAGER = "ring-training-operator"
APPLICATION = "ring-training-job"
ANNOTATION_EPOCH = f"{GROUP}/epoch"

# A pod is named after the job and is also a host name, of at most 63 characters; ten are left for its number.
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


def pod(job: str, index: int) -> str:
    return f"{job}-{index}"


def subdomain(job: str) -> str:
    """The headless service under which the pods have DNS names."""
    return job


def job_labels(job: str) -> dict[str, str]:
    """Labels of everything that belongs to the job; also the selector of its pods."""
    return {LABEL_JOB: job, LABEL_NAME: APPLICATION, LABEL_MANAGED_BY: MANAGER}


def pod_labels(job: str, index: int) -> dict[str, str]:
    return {**job_labels(job), LABEL_POD_INDEX: str(index)}
