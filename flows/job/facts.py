"""What the stages of a removal hand each other: their names, their files, and their facts.

Facts are small and JSON; tensors and tables are files beside them, in the job's work area. Each stage has one model of
its facts, so that what one stage writes is what the next one reads. Together they are the evidence of a version.

Axes: n training samples, m of them removed, d trained parameters.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from oubli.components.blocks.choosing import BlockChoice
from oubli.components.curvature.kinds import CurvatureKind
from oubli.components.curvature.snapshots.snapshot import SnapshotForm
from oubli.components.gate.acceptance import AcceptanceStatistics
from oubli.components.gate.refusals import Refusal
from oubli.components.gate.verdict import Decision
from oubli.components.removal.update import StepReport


class Stage(StrEnum):
    """The stages of a removal; `oubli.flows.stages.sequence` says in which order they run."""

    FETCH = "fetch"
    GRADIENTS = "gradients"
    BLANKET = "blanket"
    UPDATE = "update"
    RETRAIN = "retrain"
    AUDIT = "audit"
    VALIDATE = "validate"
    REGISTER = "register"


WEIGHTS = "weights.safetensors"
"""A state dict: the parent's (fetch), the updated (update), the retrained (retrain)."""

REMOVED_IDS = "removed.parquet"
"""The ids to remove, in the column `sample_id` (fetch)."""

GRADIENTS = "gradients.safetensors"
"""`sum` (d,) and `norms` (m,) of the removed samples' loss gradients (gradients)."""

BLOCK = "block.safetensors"
"""`indices`, the flat indices of the parameters that may move, int64; no file where all may (blanket)."""


AUDIT_OUTPUTS = "outputs.safetensors"
"""`judge.removed`, `judge.held_out`, `witness.removed`, `witness.held_out`: what two auditors, who never saw the
removed samples, say on them (m, ...) and on the held-out ones (k, ...), calibrated to the original model (audit)."""


class _Facts(BaseModel):
    # Figures may be infinite or no number, and stay so in the manifest.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class FetchFacts(_Facts):
    """The request, as it was resolved against its parent version.

    Attributes:
        request_ids: Of the requests that the removal set names.
        removed: Samples that this removal takes.
        removed_before: Samples that the parent lacks already.
        already_removed: Requested samples among those.
        unknown: Requested ids that are not in the training data.
    """

    request_ids: tuple[str, ...]
    removed: int
    removed_before: int
    already_removed: int
    unknown: int


class GradientFacts(_Facts):
    """Norms of the removed samples' loss gradients, without the L2 term."""

    seconds: float
    gradient_norm_of_sum: float
    largest_gradient_norm: float
    median_gradient_norm: float


class BlanketFacts(_Facts):
    """What L-FOCI says of its selection.

    Attributes:
        counts: For each chosen slice, the removed samples whose selection contains it.
        noise_scale: Of the noise that breaks ties, in standard deviations of a column.
        samples_that_selected_nothing: How many removed samples have an empty selection.
    """

    counts: tuple[int, ...]
    noise_scale: float
    samples_that_selected_nothing: int


class BlockFacts(_Facts):
    """Which parameters the update may change.

    Attributes:
        selection: How they were chosen.
        block: How many they are.
        parameters: d.
        candidate_slices: The slices that were chosen among.
        not_sliced: Parameter tensors that no slice holds, and no block but the full one can contain.
        slices: The chosen slices.
        blanket: L-FOCI's evidence; None where another way chose.
    """

    seconds: float
    selection: BlockChoice
    block: int
    parameters: int
    candidate_slices: int = 0
    not_sliced: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    blanket: BlanketFacts | None = None


class AuditFacts(_Facts):
    """The models that judge a removal: trained briefly on the retained samples alone, each from fresh weights.

    Attributes:
        auditors: How many; 0 where there was no update to judge.
        epochs: Passes of each over the retained samples.
        samples_seen: Samples in all their batches together.
    """

    seconds: float
    auditors: int
    epochs: int
    samples_seen: int


class _Attempt(_Facts):
    """An update that was computed, or was tried.

    Attributes:
        curvature: Of the step: a kind that was built for it, or the form of the snapshot that was read.
        damping: How it was chosen, in words.
        snapshot_unused: Why the parent's snapshot could not serve; empty where it did, or none was wanted.
    """

    seconds: float
    curvature: CurvatureKind | SnapshotForm
    damping: str
    snapshot_unused: str = ""

    @property
    def curvature_words(self) -> str:
        """As the run's params show it."""
        if isinstance(self.curvature, SnapshotForm):
            return f"snapshot ({self.curvature.value})"
        return self.curvature.value


class Made(_Attempt):
    """An update that was made; its weights are beside it.

    Attributes:
        steps: A report of each step.
        model_gradient: ||grad F|| of the parent over all n samples.
        removal_gradient: ||grad|| that the removal adds to it, as `RemovalUpdate` has it.
        noise_sigma: Standard deviation of the noise that was added; 0 for none.
        gradient_without_noise: ||grad F_R|| where the steps ended, before noise; None where none was added.
    """

    kind: Literal["made"] = "made"
    steps: tuple[StepReport, ...]
    model_gradient: float
    removal_gradient: float
    noise_sigma: float
    gradient_without_noise: float | None

    @property
    def undamped(self) -> bool:
        """Whether no step was damped."""
        return all(step.damping == 0 for step in self.steps)


class Indefinite(_Attempt):
    """No update: the damped curvature was indefinite, as `detail` says with its figures."""

    kind: Literal["indefinite"] = "indefinite"
    detail: str


class Unsolved(_Attempt):
    """No update: its system could not be solved, or numbers were not finite, as `detail` says with its figures."""

    kind: Literal["unsolved"] = "unsolved"
    detail: str


class EmptyBlock(_Facts):
    """No update was tried: selection chose none of `candidate_slices` slices."""

    kind: Literal["empty_block"] = "empty_block"
    candidate_slices: int
    seconds: float = 0.0
    curvature_words: Literal["none"] = "none"
    damping: Literal["none"] = "none"


UpdateFacts = Made | Indefinite | Unsolved | EmptyBlock

UPDATE_FACTS: TypeAdapter[UpdateFacts] = TypeAdapter(Annotated[UpdateFacts, Field(discriminator="kind")])


class RetrainFacts(_Facts):
    """How long the training without the removed samples took."""

    seconds: float


class ValidateFacts(_Facts):
    """What was measured, and what the gate decided.

    Attributes:
        metrics: By the names that the MLflow run shows.
        decision: The gate's.
        reasons: Every rule that refused, with a sentence that holds the figures.
        not_checked: The rules that were skipped, as what was not measured for them.
        remarks: What a reader of the verdict should know beside the reasons.
        nothing_to_forget: The parent itself says of the removed samples what one who never saw them would.
        acceptance: What a network was judged by; None where no model that never saw the samples was asked.
        privacy: What may be said of privacy, in words.
    """

    seconds: float
    metrics: dict[str, float]
    decision: Decision
    reasons: tuple[Refusal, ...]
    not_checked: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    nothing_to_forget: bool = False
    acceptance: AcceptanceStatistics | None = None
    privacy: str
