"""How a removal is done and when it is refused: the settings of one removal, each with its description.

They are read from a TOML file, from the command line, or from a form, which shows the descriptions.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from oubli.components.blocks.block_choice import BlockChoice
from oubli.components.curvature.curvature_kind import CurvatureKind
from oubli.components.gate.limits import GateLimits
from oubli.registry.removals.removal_set import UnknownIds
from oubli.registry.storage.digests import json_digest

AUTO: Final = "auto"


def _names(kind: type[StrEnum]) -> list[str]:
    return [AUTO, *(member.value for member in kind)]


def _among(kind: type[StrEnum]) -> Callable[[object], object]:
    """A check with one message, where a union would give one for each of its parts."""

    def check(value: object) -> object:
        if value not in _names(kind):
            raise PydanticCustomError("choice", "Input should be one of {names}", {"names": ", ".join(_names(kind))})
        return value

    return check


def _listed(kind: type[StrEnum]) -> WithJsonSchema:
    """One list of names, which a form shows as one menu."""
    return WithJsonSchema({"type": "string", "enum": _names(kind)})


class Way(StrEnum):
    """The ways to remove samples."""

    NEWTON = "newton"
    """A Newton step on the retained objective."""

    MATCHING = "matching"
    """The model is moved to what retraining would say on the removed samples, as a surrogate predicts it."""

    RETRAIN = "retrain"
    """The recipe is run again without them."""


WaySetting = Annotated[Way | Literal["auto"], BeforeValidator(_among(Way)), _listed(Way)]
BlockSetting = Annotated[BlockChoice | Literal["auto"], BeforeValidator(_among(BlockChoice)), _listed(BlockChoice)]
CurvatureSetting = Annotated[
    CurvatureKind | Literal["auto"], BeforeValidator(_among(CurvatureKind)), _listed(CurvatureKind)
]


class Order(StrEnum):
    """How the samples of one removal are taken."""

    BATCH = "batch"
    ONE_AT_A_TIME = "one_at_a_time"


class SnapshotUse(StrEnum):
    """Whether the update reads the curvature that was kept when the model was trained."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class WhenRefused(StrEnum):
    """What follows where every way to update was refused."""

    REPORT = "report"
    RETRAIN = "retrain"
    RETRAIN_WARM = "retrain_warm"


class NothingToForget(StrEnum):
    """What follows where the model says of the removed samples what one who never saw them would."""

    RECORD = "record"
    UPDATE = "update"
    RETRAIN = "retrain"


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
    """How a removal is done and when it is refused. Every field but `alias` is part of the removal's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: WaySetting = Field(
        AUTO,
        description="How samples are removed. 'newton': a Newton step, exact in the limit for a convex model. "
        "'matching': a surrogate, trained briefly on the retained samples, predicts what retraining would say, and the "
        "model is moved there; for networks whose loss is cross_entropy, bce_with_logits or mse. 'retrain': the recipe "
        "is run again. 'auto': the best for the model, then the next where it is refused: newton for a convex model, "
        "or where a setting of the Newton step or a privacy target is given; else matching, then newton.",
    )
    ladder: tuple[Way, ...] = Field(
        (), description="The ways to try, one after another until one is accepted. Empty: what `method` says."
    )
    when_refused: WhenRefused = Field(
        WhenRefused.REPORT,
        description="What follows where every way was refused. 'report': nothing, and the reasons are reported; "
        "'retrain': the recipe is run again without the samples; 'retrain_warm': the same from the version's weights, "
        "which is quicker, and no guarantee that nothing of the samples is left.",
    )
    nothing_to_forget: NothingToForget = Field(
        NothingToForget.RECORD,
        description="What follows where the model already says of the removed samples what one who never saw them "
        "would. 'record': a version with the same weights is registered, marked as such; 'update': the update is "
        "judged and registered all the same; 'retrain': the recipe is run again without them.",
    )
    selection: BlockSetting = Field(
        AUTO,
        description="Parameters to update. 'full': all. 'l_foci': the Markov blanket, the union of what L-FOCI selects "
        "for each removed sample; 'l_foci_batch': one selection on the batch's means, cheaper and coarser. "
        "'top_gradient' and 'random': a block of block_size parameters, for comparison. 'auto': full for a convex "
        "model, where the update is exact in the limit, and for matching; l_foci for a Newton step on a network.",
    )
    block_size: int | None = Field(
        None,
        ge=1,
        description="Parameters of the block, as near as whole slices come to it. 'top_gradient' and 'random' need it; "
        "for l_foci it is an upper limit; 'full' knows none.",
    )
    perturbations: int = Field(
        1000, ge=10, description="Perturbed copies of each removed sample that selection looks at, at most."
    )
    blanket_budget: float = Field(
        0.05,
        gt=0,
        allow_inf_nan=False,
        description="What the Markov blanket may cost, as a share of a retraining, counted in passes through the "
        "network: beyond it, selection looks at fewer copies, and then at fewer of the removed samples.",
    )
    perturbation_sigma: float = Field(
        0.1,
        gt=0,
        description="Standard deviation of the perturbation, in normalised input units. For images and numbers.",
    )
    token_replacements: int = Field(
        1, ge=1, description="For texts: how many random words of a sample each perturbed copy has replaced."
    )
    curvature: CurvatureSetting = Field(
        AUTO,
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
        None,
        ge=1,
        le=10,
        description="Newton steps. Empty: on a convex model as many as the bound on the distance to retraining asks "
        "for, one otherwise.",
    )
    surrogate_epochs: int | None = Field(
        None,
        ge=1,
        description="Matching: passes of the surrogate over the retained samples; more where one teaches little, as "
        "with texts. Empty: the default of `SurrogatePlan`.",
    )
    matching_steps: int | None = Field(
        None,
        ge=1,
        description="Matching: steps; more leave less drift on the retained samples. Empty: the default of "
        "`MatchingPlan`.",
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
    limits: GateLimits = Field(
        GateLimits(), description="What the update may cost, and what it may start from: the limits of the gate."
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
        if self.ladder and self.method != AUTO:
            raise ValueError(f"method is {str(self.method)!r}, but ladder lists the ways: give one of them")
        if len(set(self.ladder)) < len(self.ladder) or Way.RETRAIN in self.ladder[:-1]:
            raise ValueError("ladder lists each way once, and retrain last: nothing refuses it")
        if self.privacy is not None and Way.MATCHING in (self.method, *self.ladder):
            raise ValueError("the noise of a privacy target is scaled for the Newton step: leave matching out")
        if self.selection in (BlockChoice.TOP_GRADIENT, BlockChoice.RANDOM) and self.block_size is None:
            raise ValueError(f"selection {str(self.selection)!r} needs a block_size")
        if self.order is Order.ONE_AT_A_TIME and self.curvature_samples is not None:
            raise ValueError("one_at_a_time takes the curvature of all retained samples: leave curvature_samples out")
        if self.use_snapshot is SnapshotUse.ALWAYS:
            if self.order is not Order.BATCH:
                raise ValueError("use_snapshot 'always' and order 'one_at_a_time' exclude each other")
            if (self.steps or 1) > 1:
                raise ValueError(f"a snapshot serves one step, but steps is {self.steps}")
            if self.curvature != AUTO:
                raise ValueError(f"a snapshot holds its own curvature, but curvature is {str(self.curvature)!r}")
        return self

    def for_way(self, way: Way) -> UnlearnConfig:
        """The settings of a removal by this way alone: what follows a refusal has no part in it."""
        return self.model_copy(update={"method": way, "ladder": (), "when_refused": WhenRefused.REPORT})

    def digest(self) -> str:
        """SHA-256 of every setting that has a part in what the removal makes."""
        return json_digest(self.model_dump(mode="json", exclude={"alias"}))
