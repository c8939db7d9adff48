"""What a run says about where its model comes from.

MLflow's comparison puts params and metrics of equal names side by side; hence every run bears the same params, whether
the model was trained, unlearned or retrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from oubli.registry.models.tags import Artifact, Param
from oubli.registry.training.training_record import TrainingRecord

# As many request ids as a comparison can show; the evidence artifact lists all.
_SHOWN_CHARACTERS = 500
_NONE = "none"


class Method(StrEnum):
    """How a version came to be."""

    TRAINED = "trained"
    UNLEARNED = "unlearned"
    RETRAINED = "retrained"
    RETRAINED_WARM = "retrained_warm"
    """Trained again from the weights of a version that knew the removed samples."""


@dataclass(frozen=True)
class Lineage:
    """Where a version, or a refusal, comes from; what the params of its run say."""

    method: Method
    verdict: str
    """How it ended: trained, retrained, or what the gate decided."""
    parent_version: str = _NONE
    request_ids: Sequence[str] = ()
    """The removal requests that were served."""
    removed: int = 0
    """Samples that this version removes."""
    removed_in_all: int = 0
    """Samples removed since the model was trained, this removal included."""
    removal_digest: str = _NONE
    """Digest of the removed ids under the store's secret key."""
    config_digest: str = _NONE
    """SHA-256 of the removal's configuration."""
    selection: str = _NONE
    """Which parameters the update could change."""
    curvature: str = _NONE
    damping: str = _NONE
    verdict_errors: str = _NONE
    """How often verdicts of this kind are wrong, in words."""
    privacy: str = _NONE
    """What may be said of privacy, in words."""

    def params(self, record: TrainingRecord) -> dict[str, str]:
        """The run's params, by name.

        Args:
            record: How the model was trained.
        """
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
            Param.VERDICT_ERRORS: self.verdict_errors,
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
