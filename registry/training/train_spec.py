"""What to train, on what, and under which name."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from oubli.registry.training.training_record import (
    ConvexField,
    DatasetReference,
    DecoderField,
    DtypeField,
    FactoryField,
    L2Field,
    LossField,
    Precision,
    RetrainField,
    SeedField,
    SensitivityField,
    SplitRule,
    TrainedField,
    TrainingField,
    TrainingRecord,
)


class TrainSpec(BaseModel):
    """What to train. The training record follows from it, with the data's digest and size filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, pattern=r"^[^/@:'\"]+$", description="Name in the model registry.")
    dataset_uri: str = Field(description="Parquet file or folder of parts.")
    id_column: str = Field("sample_id", description="Column of unique sample ids.")
    label_column: str = Field("label", description="Column of labels or targets.")
    subject_column: str | None = Field(None, description="Column of the person or owner, if there is one.")
    split: SplitRule = Field(SplitRule(), description="Which rows train and which test.")
    decoder: DecoderField
    loss: LossField
    l2: L2Field
    seed: SeedField = 0
    factory: FactoryField
    retrain: RetrainField
    convex: ConvexField = False
    dtype: DtypeField = Precision.FLOAT32
    trained: TrainedField = None
    sensitivity: SensitivityField = None
    training: TrainingField = None
    snapshot: bool | None = Field(
        None,
        description="Keep the model's curvature with the version, at the cost of one more pass over the training data, "
        "so that a removal can read the removed samples alone. Empty: for a network, whose removal takes one step.",
    )
    secant: bool = Field(
        False,
        description="Also keep how weights and gradients changed over the last epoch, for removals whose curvature is "
        "finite_difference. For trainers that report their epochs.",
    )
    alias: str = Field("champion", min_length=1, description="Alias that the new version gets.")

    def record(self, dataset_sha256: str, n: int) -> TrainingRecord:
        """The training record of a model trained to this specification.

        Args:
            dataset_sha256: Digest of the training data.
            n: Samples trained on.
        """
        dataset = DatasetReference(uri=self.dataset_uri, sha256=dataset_sha256, **self._shared_with(DatasetReference))
        return TrainingRecord(dataset=dataset, n=n, **self._shared_with(TrainingRecord))

    def _shared_with(self, model: type[BaseModel]) -> dict[str, Any]:
        """The values of the fields that `model` has too."""
        return {name: getattr(self, name) for name in model.model_fields if name in type(self).model_fields}
