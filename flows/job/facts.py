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
from oubli.components.curvature.factors import FactorForm
from oubli.components.curvature.kinds import CurvatureKind
from oubli.components.curvature.snapshots.snapshot import SnapshotForm
from oubli.components.gate.acceptance import AcceptanceStatistics
from oubli.components.gate.refusals import Refusal
from oubli.components.gate.verdict import Decision
from oubli.components.removal.update import StepReport
from oubli.registry.training.held_out import HeldOutFrom
from oubli.registry.training.how_trained import SettingsSource


class Stage(StrEnum):
    """The stages of a removal; `oubli.flows.stages.sequence` says in which order they run."""

    FETCH = "fetch"
    GRADIENTS = "gradients"
    BLANKET = "blanket"
    SURROGATE = "surrogate"
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

CARRIERS = "carriers.safetensors"
"""`indices`, flat indices of the Markov blanket, int64; no file where it is the block or there is none (blanket)."""

SURROGATE = "surrogate.safetensors"
"""`theta` (d,), and the buffers that training moves as `buffer.NAME` (surrogate)."""

ORIGINAL_OUTPUTS = "original_outputs.parquet"
"""The original model's outputs on retained and held-out samples, which matching held the model to (update)."""

AUDITORS = ("judge", "witness")
"""The models that never saw the removed samples, by the names that their outputs have."""

AUDIT_OUTPUTS = "outputs.safetensors"
"""`judge.removed`, `judge.held_out`, `witness.removed`, `witness.held_out`: what two auditors, who never saw the
removed samples, say on them (m, ...) and on the held-out ones (k, ...), calibrated to the original model (audit)."""


NO_DAMPING = "none (matching)"


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
        held_out_from: Where the held-out samples come from that decide, and are not reported on.
        held_out: How many they are.
    """

    request_ids: tuple[str, ...]
    removed: int
    removed_before: int
    already_removed: int
    unknown: int
    held_out_from: HeldOutFrom
    held_out: int


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
        samples_that_selected_nothing: How many of these samples have an empty selection.
        samples: Removed samples that were looked at; fewer than all where the budget asks for it.
        perturbations: Copies of each.
    """

    counts: tuple[int, ...]
    noise_scale: float
    samples_that_selected_nothing: int
    samples: int
    perturbations: int


class BlockFacts(_Facts):
    """Which parameters the update may change.

    Attributes:
        selection: How they were chosen.
        block: How many they are.
        parameters: d.
        candidate_slices: The slices that were chosen among.
        not_sliced: Parameter tensors that no slice holds, and no block but the full one can contain.
        slices: The chosen slices; where all parameters may move, those of the blanket, as evidence.
        blanket: L-FOCI's evidence; None where it was not asked.
        no_blanket: Why L-FOCI has no evidence although it was asked; empty where it has.
    """

    seconds: float
    selection: BlockChoice
    block: int
    parameters: int
    candidate_slices: int = 0
    not_sliced: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    blanket: BlanketFacts | None = None
    no_blanket: str = ""


class SurrogateFacts(_Facts):
    """A model that was trained briefly on the retained samples alone, to see what retraining would say.

    Attributes:
        epochs: Passes over the retained samples at most; of a large set, a part is enough.
        samples_seen: Samples in all its batches.
        batch_size: Samples of a batch.
        peak_rate: The highest learning rate.
        settings: Where the settings of training, which it follows, were found.
        failed: Why there is none; empty where there is.
    """

    seconds: float
    epochs: int
    samples_seen: int
    batch_size: int
    peak_rate: float
    settings: SettingsSource
    failed: str = ""


class AuditFacts(_Facts):
    """The models that judge a removal: trained briefly on the retained samples alone, each from fresh weights.

    Attributes:
        auditors: How many; 0 where there was no update to judge.
        epochs: Passes of each over the retained samples at most.
        samples_seen: Samples in all their batches together.
        failed: Which of them could not be trained, and why; empty where all were.
    """

    seconds: float
    auditors: int
    epochs: int
    samples_seen: int
    failed: str = ""


class _Attempt(_Facts):
    """An update that was computed, or was tried.

    Attributes:
        curvature: Of the step: a kind that was built for it, or the form of the snapshot or the factor that was read;
            None where the model was moved by matching.
        damping: How it was chosen, in words.
        snapshot_unused: Why nothing that was kept with the parent could serve; empty where it did, or none was wanted.
    """

    seconds: float
    curvature: CurvatureKind | SnapshotForm | FactorForm | None
    damping: str
    snapshot_unused: str = ""

    @property
    def curvature_words(self) -> str:
        """As the run's params show it."""
        if self.curvature is None:
            return "none (matching)"
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
        factor: The tags that point to the factor by which the steps went to a convex model's minimiser; else empty.
    """

    kind: Literal["made"] = "made"
    steps: tuple[StepReport, ...]
    model_gradient: float
    removal_gradient: float
    noise_sigma: float
    gradient_without_noise: float | None
    factor: dict[str, str] = {}

    @property
    def undamped(self) -> bool:
        """Whether no step was damped."""
        return all(step.damping == 0 for step in self.steps)

    @property
    def passes(self) -> int:
        """Over the retained samples, where the steps counted them; else 0."""
        return sum(step.passes for step in self.steps)


class Matched(_Attempt):
    """An update that was made by matching; its weights and buffers are beside it.

    Attributes:
        steps: Steps taken.
        rate: The first learning rate.
        surrogate_epochs: Passes of the surrogate that gave the targets.
        removed_in_all: Samples that were matched: all removed since the original was trained whose rows are still in
            the data.
        retained: Retained samples that the model was held to the original's outputs on.
        held_out: Samples that the surrogate was calibrated on.
        original: Where the original's outputs come from, in words.
        block: Parameters that could move.
        moved_in_blanket: Root mean square of how far the parameters in the blanket moved; None without a blanket.
        moved_elsewhere: The same of the others.
        noise_sigma: No noise is added.
    """

    kind: Literal["matched"] = "matched"
    curvature: None = None
    damping: str = NO_DAMPING
    steps: int
    rate: float
    surrogate_epochs: int
    removed_in_all: int
    retained: int
    held_out: int
    original: str
    block: int
    moved_in_blanket: float | None
    moved_elsewhere: float | None
    noise_sigma: float = 0.0


class Indefinite(_Attempt):
    """No update: the damped curvature was indefinite, as `detail` says with its figures."""

    kind: Literal["indefinite"] = "indefinite"
    detail: str


class Unsolved(_Attempt):
    """No update: its system could not be solved, or numbers were not finite, as `detail` says with its figures.

    By matching: the surrogate, its calibration or the steps diverged.
    """

    kind: Literal["unsolved"] = "unsolved"
    detail: str


class EmptyBlock(_Facts):
    """No update was tried: selection chose none of `candidate_slices` slices."""

    kind: Literal["empty_block"] = "empty_block"
    candidate_slices: int
    seconds: float = 0.0
    curvature_words: Literal["none"] = "none"
    damping: Literal["none"] = "none"


UpdateFacts = Made | Matched | Indefinite | Unsolved | EmptyBlock

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
