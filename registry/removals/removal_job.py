"""What one removal is asked to do, what identifies it, and how it ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from oubli.registry.removals.removal_set import UnknownIds
from oubli.registry.storage.digests import json_digest
from oubli.registry.storage.uris import join
from oubli.registry.storage.work_area import WorkArea


class Selection(StrEnum):
    """Which parameters the update may change."""

    AUTO = "auto"
    L_FOCI = "l_foci"
    FULL = "full"


class UnlearnConfig(BaseModel):
    """How a removal is done and when it is refused. Every field but `alias` is part of the outcome's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    selection: Selection = Field(
        Selection.AUTO,
        description="Parameters to update: 'full', or the Markov blanket that 'l_foci' selects. "
        "'auto' takes full for a convex model, where the update is exact in the limit, and l_foci otherwise.",
    )
    perturbations: int = Field(
        1000, ge=10, description="Perturbed copies of each removed sample that selection looks at."
    )
    perturbation_sigma: float = Field(
        0.1, gt=0, description="Standard deviation of the perturbation, in normalised input units."
    )
    steps: int | None = Field(
        None, ge=1, le=10, description="Newton steps. Empty: two for a convex model, one otherwise."
    )
    damping: float | None = Field(
        None,
        ge=0,
        description="Added to the curvature's diagonal. Empty: none for a convex model, otherwise relative to the "
        "mean curvature of the block.",
    )
    max_test_accuracy_drop: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Refuse where test accuracy falls by more than this fraction (0.01 = one point).",
    )
    max_test_loss_rise: float = Field(
        0.05,
        ge=0,
        description="For a regression model: refuse where test loss rises by more than this fraction.",
    )
    compare_with_retraining: bool = Field(
        False, description="Also retrain without the removed samples and report both beside each other. Slow."
    )
    unknown_ids: UnknownIds = Field(
        UnknownIds.ERROR,
        description="Ids that are not in the training data: 'error' stops, 'report' counts them and goes on.",
    )
    seed: int = Field(0, ge=0, description="Seed of the perturbations and of selection's noise.")
    alias: str = Field(
        "challenger",
        min_length=1,
        description="Registry alias that the new version gets once it is accepted. Removals that name a model alone "
        "continue from 'challenger', and know no other.",
    )

    def digest(self) -> str:
        return json_digest(self.model_dump(mode="json", exclude={"alias"}))


class RemovalJob(BaseModel):
    """One removal, fully named: what the stages of a flow hand each other.

    `outcome` is the digest of parent version, parent weights, removal set and configuration, so the same
    request has the same name wherever and whenever it runs.
    """

    model_config = ConfigDict(frozen=True)

    outcome: str
    store_root: str
    model: str
    parent_version: str
    removal_digest: str
    config: UnlearnConfig

    @property
    def area(self) -> WorkArea:
        return WorkArea(join(self.store_root, "work", self.outcome))


class Status(StrEnum):
    """How a removal ended."""

    REGISTERED = "registered"
    REFUSED = "refused"
    ALREADY_DONE = "already_done"
    NOTHING_TO_REMOVE = "nothing_to_remove"


class RemovalOutcome(BaseModel):
    """What a removal came to. Holds no sample or subject ids."""

    model_config = ConfigDict(frozen=True)

    status: Status
    outcome: str
    model: str
    parent_version: str
    version: str | None = Field(description="The version without the removed samples; none where refused.")
    run_id: str | None
    removed: int = Field(0, description="Samples removed by this request.")
    already_removed: int = Field(0, description="Requested samples that an earlier version had removed.")
    unknown: int = Field(0, description="Requested ids that are not in the training data.")
    reasons: tuple[str, ...] = Field((), description="Why it was refused, with figures.")
    advice: str = ""

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        match self.status:
            case Status.REGISTERED:
                return f"{self.model}: version {self.version} registered"
            case Status.ALREADY_DONE:
                return f"{self.model}: already done, by version {self.version}"
            case Status.NOTHING_TO_REMOVE:
                return f"{self.model}: nothing to remove, none of the ids is in the training data"
            case Status.REFUSED:
                return f"{self.model}: refused, retrain"


def outcome_digest(
    *,
    model: str,
    parent_version: str,
    weights_sha256: str,
    record_sha256: str,
    removal_digest: str,
    config: UnlearnConfig,
) -> str:
    """Name of the outcome: 32 hexadecimal digits (128 bits)."""
    identity: dict[str, Any] = {
        "model": model,
        "parent_version": parent_version,
        "weights": weights_sha256,
        "record": record_sha256,
        "removals": removal_digest,
        "config": config.digest(),
    }
    return json_digest(identity)[:32]
