"""What one removal is asked to do, what identifies it, and how it ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from oubli.components.gate.limits import GateLimits
from oubli.registry.removals.removal_set import UnknownIds
from oubli.registry.removals.work_area import WorkArea
from oubli.registry.storage.digests import json_digest
from oubli.registry.storage.uris import join


class Selection(StrEnum):
    """Which parameters the update may change: those of components/blocks.py, or what suits the model."""

    AUTO = "auto"
    L_FOCI = "l_foci"
    L_FOCI_BATCH = "l_foci_batch"
    TOP_GRADIENT = "top_gradient"
    RANDOM = "random"
    FULL = "full"


class Curvature(StrEnum):
    """The curvature of the step: those of components/curvature/kinds.py, or what suits the model."""

    AUTO = "auto"
    GGN = "ggn"
    HESSIAN = "hessian"
    FISHER = "fisher"
    SAMPLED_FISHER = "sampled_fisher"
    KFAC = "kfac"
    EKFAC = "ekfac"
    FINITE_DIFFERENCE = "finite_difference"


class Order(StrEnum):
    """How the samples of one removal are taken."""

    BATCH = "batch"
    ONE_AT_A_TIME = "one_at_a_time"


class SnapshotUse(StrEnum):
    """Whether the update reads the curvature that was kept when the model was trained."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Privacy(BaseModel):
    """A privacy target: what noise is added for, over all removals since the model was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float = Field(
        gt=0,
        allow_inf_nan=False,
        description="How far the odds of any outcome may differ from a retrained model's, as a factor of e^epsilon. "
        "Smaller is stricter and noisier; above 1 it is a target, no guarantee.",
    )
    delta: float = Field(
        gt=0, lt=1, description="Probability with which epsilon may fail; well below 1 / number of samples."
    )
    max_noise: float = Field(
        0.1,
        gt=0,
        allow_inf_nan=False,
        description="Refuse where the noise would exceed this share of the weights' norm: the model's deletion "
        "capacity is spent then.",
    )


class UnlearnConfig(BaseModel):
    """How a removal is done and when it is refused. Every field but `alias` is part of the outcome's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    selection: Selection = Field(
        Selection.AUTO,
        description="Parameters to update. 'full': all. 'l_foci': the Markov blanket, the union of what L-FOCI selects "
        "for each removed sample; 'l_foci_batch': one selection on the batch's means, cheaper and coarser. "
        "'top_gradient' and 'random': a block of block_size parameters, for comparison. 'auto': full for a convex "
        "model, where the update is exact in the limit, and l_foci otherwise.",
    )
    block_size: int | None = Field(
        None,
        ge=1,
        description="Parameters of the block, as near as whole slices come to it. 'top_gradient' and 'random' need it; "
        "for l_foci it is an upper limit; 'full' knows none.",
    )
    perturbations: int = Field(
        1000, ge=10, description="Perturbed copies of each removed sample that selection looks at."
    )
    perturbation_sigma: float = Field(
        0.1,
        gt=0,
        description="Standard deviation of the perturbation, in normalised input units. For images and numbers.",
    )
    token_replacements: int = Field(
        1, ge=1, description="For texts: how many random words of a sample each perturbed copy has replaced."
    )
    curvature: Curvature = Field(
        Curvature.AUTO,
        description="Curvature of the step. 'ggn': generalised Gauss-Newton, never indefinite. 'hessian': exact, may "
        "be indefinite on a network. 'fisher': empirical, low rank; 'sampled_fisher': an unbiased estimate of ggn with "
        "one row per sample. 'kfac', 'ekfac': Kronecker factors of whole layers, for large networks. "
        "'finite_difference': the method's first paper, for comparison. 'auto': ggn.",
    )
    curvature_samples: int | None = Field(
        None,
        ge=1,
        description="Estimate the curvature from this many random retained samples. Empty: from all of them.",
    )
    order: Order = Field(
        Order.BATCH,
        description="'batch': all removed samples in one update. 'one_at_a_time': one after another, the curvature "
        "made anew for each: slow, for checking the batch.",
    )
    use_snapshot: SnapshotUse = Field(
        SnapshotUse.AUTO,
        description="Take the curvature that was kept when the model was trained, so that the update reads the removed "
        "samples alone. 'auto': where there is one of these very weights and a single step is made, as on networks; "
        "'always': one step from it or an error; 'never': pass over the retained samples.",
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
    privacy: Privacy | None = Field(
        None,
        description="Add noise for this (epsilon, delta), by the sensitivity in the training record. It is a guarantee "
        "only for a convex model with proven bounds; elsewhere a stated target. Empty: no noise.",
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
    max_gradient_ratio: float = Field(
        GateLimits.gradient_ratio,
        gt=0,
        allow_inf_nan=False,
        description="Refuse where the model's own gradient exceeds this many times that of the removal: it was never "
        "trained to a minimum, and the step would go on training instead of forgetting.",
    )
    max_gradient_rise: float = Field(
        GateLimits.gradient_rise,
        ge=0,
        allow_inf_nan=False,
        description="For a network: refuse where the retained gradient norm rises by more than this fraction.",
    )
    max_convex_gradient_left: float = Field(
        GateLimits.convex_gradient_fraction,
        gt=0,
        le=1,
        description="For a convex model: refuse where more than this share of the retained gradient is left.",
    )
    max_class_share: float = Field(
        GateLimits.class_share,
        ge=0,
        le=1,
        description="For a network: refuse where the removals since training take more than this share of a class.",
    )
    max_membership_left: float = Field(
        GateLimits.membership_left,
        ge=0,
        le=1,
        description="For a network: refuse where membership inference still tells the removed samples better than it "
        "is expected to of a model that never saw them, by more than this area under the curve.",
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.selection in (Selection.TOP_GRADIENT, Selection.RANDOM) and self.block_size is None:
            raise ValueError(f"selection {self.selection.value!r} needs a block_size")
        if self.order is Order.ONE_AT_A_TIME and self.curvature_samples is not None:
            raise ValueError("one_at_a_time takes the curvature of all retained samples: leave curvature_samples out")
        if self.use_snapshot is SnapshotUse.ALWAYS:
            if self.order is not Order.BATCH:
                raise ValueError("use_snapshot 'always' and order 'one_at_a_time' exclude each other")
            if (self.steps or 1) > 1:
                raise ValueError(f"a snapshot serves one step, but steps is {self.steps}")
            if self.curvature is not Curvature.AUTO:
                raise ValueError(f"a snapshot holds its own curvature, but curvature is {self.curvature.value!r}")
        return self

    @property
    def limits(self) -> GateLimits:
        """What the gate is told."""
        return GateLimits(
            accuracy_drop=self.max_test_accuracy_drop,
            loss_rise=self.max_test_loss_rise,
            gradient_rise=self.max_gradient_rise,
            gradient_ratio=self.max_gradient_ratio,
            convex_gradient_fraction=self.max_convex_gradient_left,
            class_share=self.max_class_share,
            membership_left=self.max_membership_left,
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
