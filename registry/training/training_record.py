"""The training record: what must be known about a trained model to remove samples from it.

It is logged as JSON with the model version. Its fields carry descriptions, so that its JSON schema documents itself.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from oubli.components.model.loss_names import Loss
from oubli.components.removal.optimisers import Optimiser
from oubli.registry.errors import TrainingRecordError
from oubli.registry.training.imports import IMPORT_STRING

SCHEMA_VERSION: Literal[1] = 1
_SHOWN_CHARACTERS = 60

ImportString = Annotated[str, Field(pattern=IMPORT_STRING)]
ColumnName = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[int, Field(ge=0)]


class LabelKind(StrEnum):
    """How a label column becomes a tensor."""

    CLASS = "class"  # int64 class numbers
    FLOAT = "float"  # float32 targets
    AS_STORED = "as_stored"  # integers as int64, floating-point numbers as float32


class Split(StrEnum):
    """The parts of a dataset."""

    TRAIN = "train"
    TEST = "test"
    VALIDATION = "validation"


class Precision(StrEnum):
    """Floating-point type of a model's parameters."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


_LABELS_OF = {
    Loss.CROSS_ENTROPY: LabelKind.CLASS,
    Loss.BCE_WITH_LOGITS: LabelKind.FLOAT,
    Loss.MSE: LabelKind.FLOAT,
}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitRule(_Model):
    """Which rows the model was trained on, which it is tested on, and which are held out for other decisions."""

    column: ColumnName = Field(default="split", description="Column that says which split a row belongs to.")
    train: str = Field(default="train", description="Its value in rows that the model was trained on.")
    test: str = Field(default="test", description="Its value in rows held out to test the model.")
    validation: str | None = Field(
        default=None,
        description="Its value in rows held out from training and testing, if there are any: a removal from a network "
        "is calibrated and judged on them. Without them, half of the test rows serve, and figures are those of the "
        "other half.",
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        values = [value for value in (self.train, self.test, self.validation) if value is not None]
        if len(set(values)) < len(values):
            raise ValueError("the train and test values must differ, as must that of validation")
        return self

    def value(self, split: Split) -> str | None:
        """The column's value in the rows of `split`; None where the data has no such split."""
        match split:
            case Split.TRAIN:
                return self.train
            case Split.TEST:
                return self.test
            case Split.VALIDATION:
                return self.validation


class DatasetReference(_Model):
    """Where the training data lies, the digest of its bytes, and its columns."""

    uri: str = Field(min_length=1, description="A Parquet file, or a folder of Parquet parts (s3:// or file://).")
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the file; for a folder, over sorted lines 'relative-path sha256' of its parts.",
    )
    id_column: ColumnName = Field(default="sample_id", description="Column of unique sample ids (string).")
    label_column: ColumnName = Field(default="label", description="Column of labels or targets.")
    subject_column: ColumnName | None = Field(
        default=None, description="Column of the person or owner a sample belongs to (string), if there is one."
    )
    split: SplitRule = Field(default=SplitRule(), description="Which rows are for training and which for testing.")


class ImageDecoder(_Model):
    """Images stored as uint8 bytes, row-major, channels last (HWC): (byte * scale - mean) / std."""

    kind: Literal["image"] = Field(default="image", description="Discriminator.")
    column: ColumnName = Field(default="image", description="Column of height * width * channels bytes per row.")
    height: int = Field(gt=0, description="Rows of pixels.")
    width: int = Field(gt=0, description="Pixels per row.")
    channels: int = Field(gt=0, description="Values per pixel.")
    scale: Positive = Field(default=1 / 255, description="Factor from a byte to a number, before normalisation.")
    mean: tuple[Finite, ...] = Field(default=(0.0,), description="Subtracted per channel (one value serves all).")
    std: tuple[Positive, ...] = Field(default=(1.0,), description="Divisor per channel (one value serves all).")

    @model_validator(mode="after")
    def _per_channel(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ValueError(f"{name} has {len(values)} values for {self.channels} channels")
        return self


class VectorDecoder(_Model):
    """Numeric features: (value - mean) / std."""

    kind: Literal["vector"] = Field(default="vector", description="Discriminator.")
    columns: tuple[ColumnName, ...] = Field(
        min_length=1, description="Numeric columns in the order of the features, or one column of lists of numbers."
    )
    mean: tuple[Finite, ...] | None = Field(default=None, description="Subtracted per feature.")
    std: tuple[Positive, ...] | None = Field(default=None, description="Divisor per feature.")


class TokensDecoder(_Model):
    """Texts stored as lists of token ids, each cut or padded at its end to `length`."""

    kind: Literal["tokens"] = Field(default="tokens", description="Discriminator.")
    column: ColumnName = Field(default="tokens", description="Column of lists of token ids (integers), of any lengths.")
    length: int = Field(gt=0, description="Tokens the model takes; longer lists lose their end, shorter are padded.")
    vocabulary: int = Field(gt=1, description="Number of token ids: they run from 0 to this less one.")
    padding: int = Field(default=0, ge=0, description="Token id that fills the places after a text's end.")
    special: tuple[NonNegative, ...] = Field(
        default=(),
        description="Ids of other tokens that are no words (start, end, unknown, mask). A perturbation never touches "
        "them, nor puts one in.",
    )

    @model_validator(mode="after")
    def _within_vocabulary(self) -> Self:
        for token in (self.padding, *self.special):
            if token >= self.vocabulary:
                raise ValueError(f"token {token} lies outside a vocabulary of {self.vocabulary}")
        if self.vocabulary - len({self.padding, *self.special}) < 2:
            raise ValueError("fewer than two tokens are ordinary, so none could be replaced by another")
        return self

    @property
    def ordinary(self) -> int:
        """The smallest id that is neither padding nor special."""
        return next(token for token in range(self.vocabulary) if token not in {self.padding, *self.special})


AnyDecoder = ImageDecoder | VectorDecoder | TokensDecoder


class FactoryReference(_Model):
    """A callable by name, and the keyword arguments to call it with."""

    target: ImportString = Field(description="Import string 'package.module:name', under an allow-listed prefix.")
    kwargs: dict[str, JsonValue] = Field(default_factory=dict, description="Keyword arguments, as JSON values.")


class Sensitivity(_Model):
    """How strongly one sample can pull on the weights: what the noise of a removal is computed from.

    Sekhari et al., NeurIPS 2021: constants of a sample's loss with its l2 term. components/gate/capacity.py
    derives them for a linear model with cross-entropy on bounded features.
    """

    lipschitz: Positive = Field(description="L: the largest norm of a sample's gradient, over the weights met.")
    hessian_lipschitz: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        description="M: how fast a sample's Hessian changes, per unit of distance between weights."
    )
    proven: bool = Field(
        default=False,
        description="Whether both are bounds that hold whatever the data, so that a privacy target can be a guarantee; "
        "if not, they are estimates.",
    )


class TrainingOptions(_Model):
    """How an optimiser trained the model: what a brief training beside it follows."""

    optimiser: Optimiser = Field(description="'sgd' with momentum, or 'adam'.")
    peak_rate: Positive = Field(description="The highest learning rate that training used.")
    batch_size: int = Field(gt=0, description="Samples of a batch.")
    epochs: int = Field(gt=0, description="Passes over the training samples.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of sgd.")


# What a training specification and a training record both say, each said once. Types of fields rather than a common
# base class: the order of a record's fields is the order of its JSON, whose digest names it.
DecoderField = Annotated[
    AnyDecoder, Field(discriminator="kind", description="How a row's columns become the model's input.")
]
LossField = Annotated[
    Loss | ImportString,
    Field(description="The per-sample loss: a name, or an import string of (outputs, labels) -> (n,) losses."),
]
L2Field = Annotated[float, Field(ge=0, allow_inf_nan=False, description="Weight of (l2/2)*||w||^2 in the objective.")]
SeedField = Annotated[
    int, Field(ge=0, description="Seed of the initial weights and of the training, given to the retraining too.")
]
FactoryField = Annotated[FactoryReference, Field(description="Builds the untrained torch module.")]
RetrainField = Annotated[
    FactoryReference, Field(description="Trains a fresh module on given samples, as the model was trained.")
]
ConvexField = Annotated[bool, Field(description="Whether the objective is convex in the parameters.")]
DtypeField = Annotated[Precision, Field(description="Floating-point type of the parameters.")]
TrainedField = Annotated[
    Annotated[tuple[ColumnName, ...], Field(min_length=1)] | None,
    Field(
        description="Qualified names of the parameters, or modules, that were trained; none for all. What they do not "
        "name is frozen: it keeps the registered weights and buffers, in a retraining too."
    ),
]
SensitivityField = Annotated[
    Sensitivity | None,
    Field(description="Bounds on a sample's influence, for removals with noise; none where nobody knows."),
]
TrainingField = Annotated[
    TrainingOptions | None,
    Field(
        description="How an optimiser trained it. None: taken from the arguments of Oubli's own trainer where that was "
        "the one, else assumed."
    ),
]


class TrainingRecord(_Model):
    """How a model version was trained. Written once, with the version; never edited."""

    schema_version: Literal[1] = Field(default=SCHEMA_VERSION, description="Version of this schema.")
    dataset: DatasetReference = Field(description="The training data.")
    decoder: DecoderField
    loss: LossField
    l2: L2Field
    n: int = Field(gt=0, description="Samples the model was trained on.")
    seed: SeedField
    factory: FactoryField
    retrain: RetrainField
    convex: ConvexField
    dtype: DtypeField = Precision.FLOAT32
    trained: TrainedField = None
    sensitivity: SensitivityField = None
    training: TrainingField = None

    @property
    def label_kind(self) -> LabelKind:
        """What the loss needs; a loss of the user's own takes labels as they are stored."""
        return _LABELS_OF[self.loss] if isinstance(self.loss, Loss) else LabelKind.AS_STORED

    def to_json(self) -> str:
        """The record as it is stored. The digest of these bytes names it."""
        # Fields that older records lack are left out where they are empty, so that their digests stay the same.
        silent: dict[str, Any] = {
            name: True for name in ("trained", "sensitivity", "training") if getattr(self, name) is None
        }
        if self.dataset.split.validation is None:
            silent["dataset"] = {"split": {"validation": True}}
        return self.model_dump_json(indent=2, exclude=silent)

    @classmethod
    def from_json(cls, text: str | bytes) -> TrainingRecord:
        """The record that was stored as `text`.

        Raises:
            TrainingRecordError: It is not JSON, of a newer schema, or wrong. The message lists every wrong field with
                what was expected and what was found.
        """
        try:
            value = json.loads(text)
        except ValueError as error:
            raise TrainingRecordError(
                f"The training record is not JSON: {error}.", remedy="Attach a valid record to the version."
            ) from error
        version = value.get("schema_version") if isinstance(value, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise TrainingRecordError(
                f"The training record was written by a newer version of Oubli: schema {version}, "
                f"this one reads up to {SCHEMA_VERSION}.",
                remedy="Upgrade Oubli.",
            )
        try:
            # From JSON text, where lists stand for tuples and strings for enums.
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = "; ".join(_described(entry) for entry in error.errors(include_url=False))
            raise TrainingRecordError(
                f"The training record has {error.error_count()} wrong fields: {problems}.",
                remedy="Correct them and attach the record to the version again.",
            ) from error


def _described(entry: Any) -> str:
    path = ".".join(str(step) for step in entry["loc"]) or "the whole record"
    if entry["type"] == "missing":
        return f"{path}: expected a value, found none"
    if entry["type"] == "extra_forbidden":
        return f"{path}: no such field in schema {SCHEMA_VERSION}"
    expected = entry["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    found = repr(entry["input"])
    if len(found) > _SHOWN_CHARACTERS:
        found = found[:_SHOWN_CHARACTERS] + "..."
    return f"{path}: expected {expected}, found {found}"
