"""Manifest -> `TrainingJob`: frozen, typed, checked, and never a dict behind this stage.

In: YAML or JSON text, or an object of the API server. Out: jobs, or one `UserError` with every fault there is: path,
numbers, remedy, file and line. The models (`model`, `workers`, `training`, `job`) hold bounds and defaults; `rules` is
the table of what binds several fields; `unsupported` the table of what the schema can say but the program cannot do
yet, or not on this machine, which `validate`, `plan` and `run` share.
"""

from ring_operator.spec.faults import nearest
from ring_operator.spec.job import JobSpec, Metadata, TrainingJob
from ring_operator.spec.load import Checked, check_manifest, job_of, load_manifest, placed, read_manifest, read_text
from ring_operator.spec.model import Architecture, Attention, Context, Model, Parallelism, Rope
from ring_operator.spec.presets import PRESETS, architecture_of
from ring_operator.spec.schema import Field, every_field, field_at, paths_named
from ring_operator.spec.training import Checkpoint, Data, Evaluation, Probe, Source, Training
from ring_operator.spec.unsupported import unsupported
from ring_operator.spec.workers import Budget, Recovery, Resources, Volume, Workers

__all__ = [
    "PRESETS",
    "Architecture",
    "Attention",
    "Budget",
    "Checked",
    "Checkpoint",
    "Context",
    "Data",
    "Evaluation",
    "Field",
    "JobSpec",
    "Metadata",
    "Model",
    "Parallelism",
    "Probe",
    "Recovery",
    "Resources",
    "Rope",
    "Source",
    "Training",
    "TrainingJob",
    "Volume",
    "Workers",
    "architecture_of",
    "check_manifest",
    "every_field",
    "field_at",
    "job_of",
    "load_manifest",
    "nearest",
    "paths_named",
    "placed",
    "read_manifest",
    "read_text",
    "unsupported",
]
