"""Decoders against a plain row-by-row reading."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from oubli.registry.errors import TrainingDataError
from oubli.registry.training.decoders import decode, decode_labels, decoder_columns, example_value
from oubli.registry.training.training_record import (
    ImageDecoder,
    LabelKind,
    TokensDecoder,
    VectorDecoder,
)

H, W, C = 2, 3, 2
SIZE = H * W * C
IMAGES = ImageDecoder(height=H, width=W, channels=C, scale=1 / 255, mean=(0.1, 0.2), std=(0.5, 2.0))

IMAGE_TYPES = {
    "fixed_size_binary": pa.binary(SIZE),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "fixed_size_list": pa.list_(pa.uint8(), SIZE),
    "list": pa.list_(pa.uint8()),
    "large_list": pa.large_list(pa.uint8()),
}


def image_batch(pixels: np.ndarray, stored: pa.DataType) -> pa.RecordBatch:
    is_list = stored in (IMAGE_TYPES[name] for name in IMAGE_TYPES if name.endswith("list"))
    rows = [row.ravel().tolist() if is_list else row.tobytes() for row in pixels]
    return pa.RecordBatch.from_arrays([pa.array(rows, stored)], ["image"])


def slow_images(pixels: np.ndarray) -> Tensor:
    """(byte * scale - mean) / std, value by value; pixels (n, H, W, C)."""
    images = torch.empty(len(pixels), C, H, W, dtype=torch.float64)
    for n, row, column, channel in np.ndindex(pixels.shape):
        value = float(pixels[n, row, column, channel]) * IMAGES.scale
        images[n, channel, row, column] = (value - IMAGES.mean[channel]) / IMAGES.std[channel]
    return images


@pytest.mark.parametrize("stored", IMAGE_TYPES.values(), ids=IMAGE_TYPES)
@given(n=st.integers(0, 5), before=st.integers(0, 3), after=st.integers(0, 2), seed=st.integers(0, 99))
def test_images_in_each_type_and_any_slice(stored: pa.DataType, n: int, before: int, after: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (before + n + after, H, W, C), dtype=np.uint8)
    batch = image_batch(pixels, stored).slice(before, n)
    images = decode(IMAGES, batch)
    assert images.dtype == torch.float32
    assert images.shape == (n, C, H, W)
    torch.testing.assert_close(images.double(), slow_images(pixels[before : before + n]), rtol=0, atol=1e-6)


def test_decoding_leaves_the_stored_bytes_alone() -> None:
    pixels = np.full((2, H, W, C), 7, np.uint8)
    batch = image_batch(pixels, pa.binary(SIZE))
    decode(IMAGES, batch).zero_()
    assert batch.equals(image_batch(pixels, pa.binary(SIZE)))


def test_one_mean_serves_all_channels() -> None:
    decoder = ImageDecoder(height=H, width=W, channels=C, scale=1.0, mean=(3.0,), std=(2.0,))
    images = decode(decoder, image_batch(np.full((1, H, W, C), 7, np.uint8), pa.binary(SIZE)))
    assert (images == 2.0).all()


NUMBERS = [pa.int8(), pa.uint16(), pa.int64(), pa.float32(), pa.float64(), pa.bool_()]


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), max_size=5),
    st.sampled_from(NUMBERS),
    st.integers(0, 2),
)
def test_vectors_from_columns_and_from_lists(rows: list[list[int]], number: pa.DataType, start: int) -> None:
    expected = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)[start:]
    expected = (expected - torch.tensor([0.5, 0, 1])) / torch.tensor([1.0, 2, 4])
    scaling: dict[str, Any] = {"mean": (0.5, 0.0, 1.0), "std": (1.0, 2.0, 4.0)}
    typed = [[bool(value) if number == pa.bool_() else value for value in row] for row in rows]
    columns = [pa.array([row[place] for row in typed], number) for place in range(3)]
    batch = pa.RecordBatch.from_arrays(columns, ["c", "a", "b"]).slice(start)
    found = decode(VectorDecoder(columns=("c", "a", "b"), **scaling), batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for stored in (pa.list_(number), pa.large_list(number), pa.list_(number, 3)):
        batch = pa.RecordBatch.from_arrays([pa.array(typed, stored)], ["x"]).slice(start)
        found = decode(VectorDecoder(columns=("x",), **scaling), batch)
        assert torch.equal(found.reshape(-1, 3), expected)


def test_columns_are_taken_in_the_decoders_order() -> None:
    batch = pa.RecordBatch.from_pydict({"a": [1.0], "b": [2.0], "c": [3.0]})
    assert decode(VectorDecoder(columns=("c", "a")), batch).tolist() == [[3.0, 1.0]]
    assert decoder_columns(VectorDecoder(columns=("c", "a"))) == ("c", "a")
    assert decoder_columns(IMAGES) == ("image",)


@pytest.mark.parametrize(
    ("kind", "values", "dtype", "expected"),
    [
        (LabelKind.CLASS, pa.array([3, 1], pa.int8()), torch.int64, [3, 1]),
        (LabelKind.CLASS, pa.array([True, False]), torch.int64, [1, 0]),
        (LabelKind.CLASS, pa.array([[3, 1], [0, 2]]), torch.int64, [[3, 1], [0, 2]]),
        (LabelKind.FLOAT, pa.array([3, 1], pa.int64()), torch.float32, [3.0, 1.0]),
        (LabelKind.FLOAT, pa.array([0.5, 1.5]), torch.float32, [0.5, 1.5]),
        (LabelKind.FLOAT, pa.array([[0.5, 1.0]], pa.list_(pa.float32(), 2)), torch.float32, [[0.5, 1.0]]),
        (LabelKind.AS_STORED, pa.array([3, 1], pa.uint8()), torch.int64, [3, 1]),
        (LabelKind.AS_STORED, pa.array([0.5], pa.float64()), torch.float32, [0.5]),
    ],
)
def test_labels(kind: LabelKind, values: pa.Array, dtype: torch.dtype, expected: list[Any]) -> None:
    labels = decode_labels(kind, "y", pa.RecordBatch.from_arrays([values], ["y"]))
    assert labels.dtype == dtype
    assert labels.tolist() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([bytes(SIZE + 1)], pa.binary(SIZE + 1)), "12 uint8 values .2x3x2., found 13 bytes in each row"),
        (pa.array([bytes(SIZE), b"x"]), "12 uint8 values .*found 1 bytes in a row"),
        (pa.array([[1] * 5], pa.list_(pa.uint8())), "12 uint8 values .*found 5 values in each row"),
        (pa.array([[1] * SIZE, [1]], pa.list_(pa.uint8())), "lists of one length, found lengths from 1 to 12"),
        (pa.array([[1] * (SIZE - 1) + [None]], pa.list_(pa.uint8())), "a number in every place.*found 1 nulls"),
        (pa.array([None, bytes(SIZE)]), "a value in every row, found 1 nulls"),
        (pa.array([[1.0] * SIZE]), "found type list"),
        (pa.array(["x"]), "found type string"),
    ],
)
def test_images_that_are_not_as_described(values: pa.Array, message: str) -> None:
    with pytest.raises(TrainingDataError, match=rf"Column 'image' .*{message}"):
        decode(IMAGES, pa.RecordBatch.from_arrays([values], ["image"]))


@pytest.mark.parametrize(
    ("columns", "extra", "message"),
    [
        ({"a": [1.0], "b": ["x"]}, {}, "'b'.*expected numbers, found type string"),
        ({"a": [1.0], "b": [None]}, {}, "'b'.*found 1 nulls"),
        ({"a": [1.0]}, {}, "'b'.*a column of that name, found columns a"),
        ({"a": [1.0], "b": [float("nan")]}, {}, "finite numbers, found 1 NaN"),
        ({"a": [1e300], "b": [1.0]}, {}, "finite numbers, found 1 NaN or infinite"),
        ({"a": [1.0], "b": [1.0]}, {"mean": (0.0,)}, "'a, b'.*1 features, as mean has, found 2 features"),
        ({"a": [1.0], "b": [[1.0]]}, {}, "'b'.*expected numbers, found type list"),
    ],
)
def test_vectors_that_are_not_as_described(columns: dict[str, list[Any]], extra: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingDataError, match=message):
        decode(VectorDecoder(columns=("a", "b"), **extra), pa.RecordBatch.from_pydict(columns))


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (LabelKind.CLASS, [0.5], "integer class numbers, found type double"),
        (LabelKind.CLASS, ["cat"], "numbers, found type string"),
        (LabelKind.FLOAT, [float("inf")], "finite"),
        (LabelKind.AS_STORED, [None, 1], "1 nulls"),
    ],
)
def test_labels_that_are_not_as_described(kind: LabelKind, values: list[Any], message: str) -> None:
    with pytest.raises(TrainingDataError, match=rf"Column 'y'.*{message}"):
        decode_labels(kind, "y", pa.RecordBatch.from_pydict({"y": values}))


TOKENS = TokensDecoder(length=4, vocabulary=20, padding=1, special=(0, 2))
TOKEN_TYPES = [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.uint8()), pa.list_(pa.int16())]


def slow_tokens(rows: list[list[int]]) -> Tensor:
    return torch.tensor([(row + [1] * 4)[:4] for row in rows], dtype=torch.int64).reshape(-1, 4)


def token_batch(rows: list[Any], stored: pa.DataType) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(rows, stored)], ["tokens"])


@pytest.mark.parametrize("stored", TOKEN_TYPES, ids=str)
@given(
    rows=st.lists(st.lists(st.sampled_from([0, *range(2, 20)]), min_size=1, max_size=9), max_size=6),
    start=st.integers(0, 3),
)
def test_tokens_are_cut_and_padded(stored: pa.DataType, rows: list[list[int]], start: int) -> None:
    tokens = decode(TOKENS, token_batch(rows, stored).slice(start))
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, slow_tokens(rows[start:]))


def test_tokens_of_one_length_each() -> None:
    batch = token_batch([[3, 4], [5, 6], [7, 8]], pa.list_(pa.int32(), 2)).slice(1)
    assert torch.equal(decode(TOKENS, batch), slow_tokens([[5, 6], [7, 8]]))


@pytest.mark.parametrize(
    ("rows", "stored", "message"),
    [
        ([[3, 20]], pa.list_(pa.int64()), r"token ids from 0 to 19, found 1 others, the first 20"),
        ([[-1], [3, 25]], pa.list_(pa.int64()), r"found 2 others, the first -1"),
        # Beyond the length too: an id that the vocabulary does not have means that it is another vocabulary.
        ([[3, 3, 3, 3, 99]], pa.list_(pa.int64()), r"the first 99"),
        ([[3], []], pa.list_(pa.int64()), r"at least one token that is no padding in every row, found 1 rows without"),
        ([[1, 1]], pa.list_(pa.int64()), r"1 rows without any"),
        ([[3], None], pa.list_(pa.int64()), r"a value in every row, found 1 nulls"),
        ([[3, None]], pa.list_(pa.int64()), r"a token id in every place of a list, found 1 nulls"),
        ([[3.0]], pa.list_(pa.float32()), r"lists of integers, found type list"),
        ([3], pa.int64(), r"lists of integers, found type int64"),
        (["text"], pa.string(), r"lists of integers, found type string"),
    ],
)
def test_what_are_no_tokens_is_refused(rows: list[Any], stored: pa.DataType, message: str) -> None:
    with pytest.raises(TrainingDataError, match=message) as caught:
        decode(TOKENS, token_batch(rows, stored))
    assert "'tokens'" in str(caught.value)


def test_an_example_is_filled_with_what_a_model_can_attend_to() -> None:
    assert example_value(TOKENS) == 3
    assert example_value(IMAGES) == 0
    assert decoder_columns(TOKENS) == ("tokens",)


@pytest.mark.parametrize("wrong", [{"padding": 5}, {"special": (5,)}, {"special": (-1,)}, {"special": (1, 2, 3, 4)}])
def test_a_vocabulary_holds_its_special_tokens(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TokensDecoder.model_validate({"length": 3, "vocabulary": 5, **wrong})
