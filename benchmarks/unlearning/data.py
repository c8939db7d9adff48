"""The data sets, as tensors.

Axes: n samples, H height, W width, T tokens, V tokens of the vocabulary, C classes.

Digits come with scikit-learn. The others are Parquet files in a folder: `fashion_mnist.parquet`,
`cuad_clauses.parquet`, `banking77.parquet`; what is not there is skipped, and said to be.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from oubli.components.blocks.perturbation import (
    SIGMA,
    GaussianPerturbation,
    Perturbation,
    TokenPerturbation,
    TokenVocabulary,
)
from oubli.components.model.samples import Samples

SUBSET = 5000
"""Training samples of a network: one training then takes seconds, and a removal set can be retrained without often."""

REPLACEMENTS = 2
"""Tokens replaced in a copy of a text."""

PADDING, UNKNOWN, START = 0, 1, 2
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]")


class Data(StrEnum):
    """The data sets."""

    DIGITS = "digits"
    FASHION = "fashion_mnist"
    CUAD = "cuad"
    BANKING = "banking77"
    SYNTHETIC_TEXT = "synthetic_text"


FILES = {
    Data.FASHION: "fashion_mnist.parquet",
    Data.CUAD: "cuad_clauses.parquet",
    Data.BANKING: "banking77.parquet",
}


@dataclass(frozen=True)
class DataSet:
    """Training and test samples; inputs (n, 1, H, W) float32 normalised, or (n, T) int64 tokens, labels (n,) int64.

    spare: training samples that no removal is made from, which a frozen backbone may be trained on; may be empty.
    owner: (n,) int64, the training samples' contracts, None where samples have no owner. vocabulary: of token inputs.
    """

    train: Samples
    test: Samples
    spare: Samples
    classes: int
    owner: Tensor | None = None
    vocabulary: TokenVocabulary | None = None

    def perturbation(self, strength: float = 1.0) -> Perturbation:
        """Copies of an input: Gaussian noise of `strength` times SIGMA, or `strength` times REPLACEMENTS tokens, at
        least one, replaced in a text."""
        if self.vocabulary is None:
            return GaussianPerturbation(strength * SIGMA)
        return TokenPerturbation(self.vocabulary, max(1, round(strength * REPLACEMENTS)))


def default_folder() -> Path:
    """$OUBLI_DATA, else `shared/data` beside the checkout."""
    named = os.environ.get("OUBLI_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"


def available(data: Data, folder: Path) -> bool:
    return data not in FILES or (folder / FILES[data]).is_file()


@cache
def load(data: Data, folder: Path, subset: int | None = SUBSET) -> DataSet:
    """The data set with at most `subset` training samples, None for all: a fixed random choice."""
    match data:
        case Data.DIGITS:
            return _digits(subset)
        case Data.FASHION:
            return _fashion(folder / FILES[data], subset)
        case Data.CUAD:
            return _texts(folder / FILES[data], subset, vocabulary=1500, length=48)
        case Data.BANKING:
            return _texts(folder / FILES[data], subset, vocabulary=1000, length=24)
        case Data.SYNTHETIC_TEXT:
            return _synthetic_text(subset)


def _digits(subset: int | None) -> DataSet:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.tensor(found.images / 16.0, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(found.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    samples = Samples(images, labels)
    train, test = order[:1437][:subset], order[1437:]
    return DataSet(samples.select(train), samples.select(test), samples.select(train[:0]), 10)


def _fashion(path: Path, subset: int | None) -> DataSet:
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["image", "label", "split"])
    pixels = np.frombuffer(b"".join(table["image"].to_pylist()), dtype=np.uint8).reshape(-1, 1, 28, 28)
    is_train = torch.tensor([split == "train" for split in table["split"].to_pylist()])
    images = torch.tensor(pixels).float() / 255
    mean, std = images[is_train].mean(), images[is_train].std()
    samples = Samples((images - mean) / std, torch.tensor(table["label"].to_pylist(), dtype=torch.int64))
    train, spare = _split(is_train.nonzero().flatten(), subset)
    return DataSet(samples.select(train), samples.select((~is_train).nonzero().flatten()), samples.select(spare), 10)


def _texts(path: Path, subset: int | None, *, vocabulary: int, length: int) -> DataSet:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    texts = table["text"].to_pylist()
    is_train = torch.tensor([split == "train" for split in table["split"].to_pylist()])
    train, spare = _split(is_train.nonzero().flatten(), subset)
    known, inputs = _tokens(texts, [texts[place] for place in train.tolist()], vocabulary, length)
    samples = Samples(inputs, torch.tensor(table["label"].to_pylist(), dtype=torch.int64))
    owner = None
    if "contract" in table.column_names:
        contracts = table["contract"].to_pylist()
        numbers = {name: number for number, name in enumerate(sorted(set(contracts)))}
        owner = torch.tensor([numbers[name] for name in contracts])[train]
    metadata = table.schema.metadata or {}
    return DataSet(
        samples.select(train),
        samples.select((~is_train).nonzero().flatten()),
        samples.select(spare),
        len(json.loads(metadata[b"label_names"])),
        owner,
        TokenVocabulary(known, frozenset({UNKNOWN, START}), PADDING),
    )


def _tokens(texts: list[str], training: list[str], vocabulary: int, length: int) -> tuple[int, Tensor]:
    """The vocabulary's size, and ids (n, T): a start token, the text, padding; longer texts are cut.

    Byte-pair encoding (Sennrich, Haddow, Birch, ACL 2016), trained on the training texts alone. Not WordPiece: that
    trainer numbers its pieces in the order of a hash table, which differs from run to run.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[UNKNOWN]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL_TOKENS), show_progress=False)
    tokenizer.train_from_iterator(training, trainer)
    start = SPECIAL_TOKENS[START]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start} $A", special_tokens=[(start, START)])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=PADDING, pad_token=SPECIAL_TOKENS[PADDING])
    encoded = [one.ids for one in tokenizer.encode_batch(texts)]
    return tokenizer.get_vocab_size(), torch.tensor(encoded, dtype=torch.int64)


def _split(places: Tensor, subset: int | None) -> tuple[Tensor, Tensor]:
    """At most `subset` of the places, at random by a fixed seed, and what is left."""
    order = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(0))]
    taken = len(order) if subset is None else subset
    return order[:taken], order[taken:]


def _synthetic_text(subset: int | None) -> DataSet:
    """Texts of 4 classes: each token is one of its class's own ten with probability 0.4, else any of the sixty."""
    generator = torch.Generator().manual_seed(0)
    classes, length, n = 4, 12, 800
    labels = torch.randint(0, classes, (n,), generator=generator)
    anyone = torch.randint(0, 60, (n, length), generator=generator)
    own = labels[:, None] * 10 + torch.randint(0, 10, (n, length), generator=generator)
    tokens = torch.where(torch.rand((n, length), generator=generator) < 0.4, own, anyone) + len(SPECIAL_TOKENS)
    tokens[:, 0] = START
    lengths = torch.randint(4, length + 1, (n,), generator=generator)
    tokens[torch.arange(length) >= lengths[:, None]] = PADDING
    owner = torch.randint(0, 60, (n,), generator=generator)
    samples = Samples(tokens, labels)
    train, test = torch.arange(600)[:subset], torch.arange(600, n)
    return DataSet(
        samples.select(train),
        samples.select(test),
        samples.select(train[:0]),
        classes,
        owner[train],
        TokenVocabulary(63, frozenset({UNKNOWN, START}), PADDING),
    )
