"""The models of spec and status -> the CustomResourceDefinition by which the API server checks a RingTrainingJob.

`structural` turns pydantic's schema into one that Kubernetes takes; `rules`, `storage` and `changes` are tables of
rules in CEL; `definition` puts it all together. Printed by `ringctl crd`; `manifests/crd` holds the printed text, and a
test fails where it is older than the models.
"""

from ring_operator.crd.definition import as_yaml, definition

__all__ = ["as_yaml", "definition"]
