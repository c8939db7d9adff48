"""What to train, on what, and under which name."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from oubli.components.model.losses import Loss
from oubli.registry.training.training_record import (
    DatasetReference,
    Decoder,
    FactoryReference,
    ImportString,
    Precision,
    Sensitivity,
    SplitRule,
    TrainingRecord,
)


class TrainSpec(BaseModel):
    """A training to run. The training record follows from it, with the data's digest and size filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, pattern=r"^[^/@:'\"]+$", description="Name in the model registry.")
    dataset_uri: str = Field(description="Parquet file or folder of parts.")
    id_column: str = Field("sample_id", description="Column of unique sample ids.")
    label_column: str = Field("label", description="Column of labels or targets.")
    subject_column: str | None = Field(None, description="Column of the person or owner, if there is one.")
    split: SplitRule = Field(SplitRule(), description="Which rows train and which test.")
    decoder: Decoder = Field(description="How a row's columns become the model's input.")
    loss: Loss | ImportString = Field(description="Per-sample loss.")
    l2: float = Field(ge=0, allow_inf_nan=False, description="Weight of (l2/2)*||w||^2.")
    seed: int = Field(0, ge=0, description="Seed of initialisation and training.")
    factory: FactoryReference = Field(description="Builds the untrained module.")
    retrain: FactoryReference = Field(description="Trains a fresh module on given samples.")
    convex: bool = Field(False, description="Whether the objective is convex in the parameters.")
    dtype: Precision = Field(Precision.FLOAT32, description="Floating-point type of the parameters.")
    trained: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Names of the parameters or modules to train, such as the head of a frozen backbone; empty for "
        "all. The others keep the weights that the factory gives them.",
    )
    sensitivity: Sensitivity | None = Field(
        None, description="Bounds on one sample's influence, for removals with noise, where somebody derived them."
    )
    snapshot: bool | None = Field(
        None,
        description="Keep the model's curvature with the version, at the cost of one more pass over the training data, "
        "so that a removal can read the removed samples alone. Empty: for a network, whose removal takes one step.",
    )
    secant: bool = Field(
        False,
        description="Also keep how weights and gradients changed over the last epoch, for removals whose curvature is "
        "finite_difference. For trainers that tell of their epochs.",
    )
    alias: str = Field("champion", min_length=1, description="Alias that the new version gets.")

    def record(self, dataset_sha256: str, n: int) -> TrainingRecord:
        """The training record of a model trained on `n` samples of a dataset with this digest."""
        dataset = DatasetReference(
            uri=self.dataset_uri,
            sha256=dataset_sha256,
            id_column=self.id_column,
            label_column=self.label_column,
            subject_column=self.subject_column,
            split=self.split,
        )
        return TrainingRecord(
            dataset=dataset,
            decoder=self.decoder,
            loss=self.loss,
            l2=self.l2,
            n=n,
            seed=self.seed,
            factory=self.factory,
            retrain=self.retrain,
            convex=self.convex,
            dtype=self.dtype,
            trained=self.trained,
            sensitivity=self.sensitivity,
        )
