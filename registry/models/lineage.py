"""What a run says of where its model comes from.

MLflow's comparison shows the params and metrics of runs, under equal names side by side; hence every run bears the same
params, whether the model was trained, unlearned or retrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from oubli.registry.models.tags import Artifact, Param
from oubli.registry.training.training_record import TrainingRecord

# Of request ids, as many as a comparison can show; the evidence artifact lists all.
_SHOWN_CHARACTERS = 500
_NONE = "none"


class Method(StrEnum):
    """How a version came to be."""

    TRAINED = "trained"
    UNLEARNED = "unlearned"
    RETRAINED = "retrained"


@dataclass(frozen=True)
class Lineage:
    """removed: samples that this version removes; removed_in_all: since the model was trained. Digests are SHA-256,
    the removal set's under the store's secret key. selection, curvature, damping, privacy: how an update was made and
    what may be said of it."""

    method: Method
    verdict: str
    parent_version: str = _NONE
    request_ids: Sequence[str] = ()
    removed: int = 0
    removed_in_all: int = 0
    removal_digest: str = _NONE
    config_digest: str = _NONE
    selection: str = _NONE
    curvature: str = _NONE
    damping: str = _NONE
    privacy: str = _NONE

    def params(self, record: TrainingRecord) -> dict[str, str]:
        """The run's params."""
        return {
            Param.METHOD: self.method.value,
            Param.VERDICT: self.verdict,
            Param.PARENT_VERSION: self.parent_version,
            Param.REQUEST_IDS: _shown(self.request_ids),
            Param.REMOVED: str(self.removed),
            Param.REMOVED_IN_ALL: str(self.removed_in_all),
            Param.REMOVAL_SET_DIGEST: self.removal_digest,
            Param.CONFIG_DIGEST: self.config_digest,
            Param.SELECTION: self.selection,
            Param.CURVATURE: self.curvature,
            Param.DAMPING: self.damping,
            Param.PRIVACY: self.privacy,
            Param.DATASET_SHA256: record.dataset.sha256,
            Param.TRAINING_SAMPLES: str(record.n),
            Param.LOSS: str(record.loss),
            Param.L2: str(record.l2),
            Param.SEED: str(record.seed),
            Param.CONVEX: str(record.convex).lower(),
            Param.TRAINED_PARAMETERS: "all" if record.trained is None else ", ".join(record.trained),
            Param.FACTORY: record.factory.target,
        }


def _shown(request_ids: Sequence[str]) -> str:
    if not request_ids:
        return _NONE
    text = ", ".join(request_ids)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{len(request_ids)} requests, listed in {Artifact.EVIDENCE}"
