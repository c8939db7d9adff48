"""What a run says of where its model comes from.

MLflow's comparison shows the params and metrics of runs, under equal names side by side; hence every run bears the same
params, whether the model was trained, unlearned or retrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

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
            "method": self.method.value,
            "verdict": self.verdict,
            "parent_version": self.parent_version,
            "request_ids": _shown(self.request_ids),
            "removed": str(self.removed),
            "removed_in_all": str(self.removed_in_all),
            "removal_set_digest": self.removal_digest,
            "config_digest": self.config_digest,
            "selection": self.selection,
            "curvature": self.curvature,
            "damping": self.damping,
            "privacy": self.privacy,
            "dataset_sha256": record.dataset.sha256,
            "training_samples": str(record.n),
            "loss": str(record.loss),
            "l2": str(record.l2),
            "seed": str(record.seed),
            "convex": str(record.convex).lower(),
            "trained_parameters": "all" if record.trained is None else ", ".join(record.trained),
            "factory": record.factory.target,
        }


def _shown(request_ids: Sequence[str]) -> str:
    if not request_ids:
        return _NONE
    text = ", ".join(request_ids)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{len(request_ids)} requests, listed in oubli/evidence.json"
