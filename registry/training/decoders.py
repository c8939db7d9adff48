"""Arrow columns to torch tensors.

Axes: n rows, C channels, H rows of pixels, W pixels per row, f features, T tokens.

Bytes are read where Arrow holds them; the one copy made is the conversion to float32, or to int64 for tokens.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from oubli.registry.errors import TrainingDataError
from oubli.registry.training.training_record import AnyDecoder, ImageDecoder, LabelKind, TokensDecoder, VectorDecoder


def decoder_columns(decoder: AnyDecoder) -> tuple[str, ...]:
    """The columns that the decoder reads."""
    return decoder.columns if isinstance(decoder, VectorDecoder) else (decoder.column,)


def example_value(decoder: AnyDecoder) -> int:
    """What an example input, of no real sample, is filled with: zeros, or a token that a model can attend to."""
    return decoder.ordinary if isinstance(decoder, TokensDecoder) else 0


def decode(decoder: AnyDecoder, batch: pa.RecordBatch) -> Tensor:
    """The model's inputs from a batch of rows.

    Args:
        decoder: How a row's columns become the model's input.
        batch: n rows with the decoder's columns.

    Returns:
        float32 images (n, C, H, W) or vectors (n, f), or int64 tokens (n, T).

    Raises:
        TrainingDataError: A column is absent, holds nulls, or is not what the decoder describes.
    """
    if isinstance(decoder, ImageDecoder):
        return _images(decoder, batch)
    if isinstance(decoder, TokensDecoder):
        return _tokens(decoder, batch)
    return _vectors(decoder, batch)


def decode_labels(kind: LabelKind, column: str, batch: pa.RecordBatch) -> Tensor:
    """The labels of a batch of rows.

    Args:
        kind: What the loss needs.
        column: The column of labels.
        batch: n rows with that column.

    Returns:
        int64 classes or float32 targets: (n,), or (n, k) from a column of lists.

    Raises:
        TrainingDataError: The column is absent, holds nulls, or is not of such numbers.
    """
    array = _column(batch, column)
    stored = array.type
    is_list = _is_list(stored)
    number = stored.value_type if is_list else stored
    integer = pa.types.is_integer(number) or pa.types.is_boolean(number)
    if not integer and not pa.types.is_floating(number):
        raise _wrong_type(column, "numbers", stored)
    if kind is LabelKind.CLASS and not integer:
        raise _wrong_type(column, "integer class numbers", stored)
    as_class = integer and kind is not LabelKind.FLOAT
    values = _rows_of_lists(array, column) if is_list else _numpy(array)
    if not as_class:
        return _finite(torch.from_numpy(_float32(values)), column)
    return torch.from_numpy(values.astype(np.int64))


def _images(decoder: ImageDecoder, batch: pa.RecordBatch) -> Tensor:
    array = _column(batch, decoder.column)
    shape = (decoder.height, decoder.width, decoder.channels)
    width = decoder.height * decoder.width * decoder.channels
    expected = f"{width} uint8 values ({decoder.height}x{decoder.width}x{decoder.channels})"
    stored = array.type
    if _is_list(stored) and pa.types.is_uint8(stored.value_type):
        pixels = _rows_of_lists(array, decoder.column)
    elif pa.types.is_binary(stored) or pa.types.is_large_binary(stored):
        sizes = pc.min_max(pc.binary_length(array))
        found = {sizes["min"].as_py(), sizes["max"].as_py()} - {None, width}
        if found:
            raise _wrong(decoder.column, expected, f"{found.pop()} bytes in a row")
        # Equal lengths lie one after another from the first row's offset.
        offsets = np.frombuffer(array.buffers()[1], np.int64 if pa.types.is_large_binary(stored) else np.int32)
        pixels = _bytes(array.buffers()[2], int(offsets[array.offset]) if len(array) else 0, len(array), width)
    elif pa.types.is_fixed_size_binary(stored):
        if stored.byte_width != width:
            raise _wrong(decoder.column, expected, f"{stored.byte_width} bytes in each row")
        pixels = _bytes(array.buffers()[1], array.offset * width, len(array), width)
    else:
        raise _wrong_type(decoder.column, expected, stored)
    if len(array) and pixels.shape[1] != width:
        raise _wrong(decoder.column, expected, f"{pixels.shape[1]} values in each row")
    images = np.empty((len(array), decoder.channels, decoder.height, decoder.width), np.float32)
    np.multiply(pixels.reshape(len(array), *shape).transpose(0, 3, 1, 2), np.float32(decoder.scale), out=images)
    images -= np.asarray(decoder.mean, np.float32).reshape(1, -1, 1, 1)
    images /= np.asarray(decoder.std, np.float32).reshape(1, -1, 1, 1)
    return torch.from_numpy(images)


def _vectors(decoder: VectorDecoder, batch: pa.RecordBatch) -> Tensor:
    first = _column(batch, decoder.columns[0])
    if len(decoder.columns) == 1 and _is_list(first.type):
        _require_number(decoder.columns[0], first.type.value_type, first.type)
        values = _float32(_rows_of_lists(first, decoder.columns[0]))
    else:
        values = np.empty((len(batch), len(decoder.columns)), np.float32)
        for position, name in enumerate(decoder.columns):
            array = _column(batch, name)
            _require_number(name, array.type, array.type)
            values[:, position] = _float32(_numpy(array))
    for name, numbers in (("mean", decoder.mean), ("std", decoder.std)):
        if numbers is None:
            continue
        if len(batch) and len(numbers) != values.shape[1]:
            raise _wrong(
                ", ".join(decoder.columns), f"{len(numbers)} features, as {name} has", f"{values.shape[1]} features"
            )
        if len(batch):
            per_feature = np.asarray(numbers, np.float32)
            values = values - per_feature if name == "mean" else values / per_feature
    return _finite(torch.from_numpy(values), ", ".join(decoder.columns))


def _tokens(decoder: TokensDecoder, batch: pa.RecordBatch) -> Tensor:
    array = _column(batch, decoder.column)
    stored = array.type
    if not (_is_list(stored) and pa.types.is_integer(stored.value_type)):
        raise _wrong_type(decoder.column, "lists of integers", stored)
    values = array.flatten()
    if values.null_count:
        raise _wrong(decoder.column, "a token id in every place of a list", f"{values.null_count} nulls")
    lengths = _numpy(pc.list_value_length(array)).astype(np.int64)
    ids = _numpy(values)
    outside = ids[(ids < 0) | (ids >= decoder.vocabulary)]
    if len(outside):
        found = f"{len(outside)} others, the first {outside[0]}"
        raise _wrong(decoder.column, f"token ids from 0 to {decoder.vocabulary - 1}", found)
    tokens = np.full((len(array), decoder.length), decoder.padding, np.int64)
    # Row and position of every id, so that those beyond the length can be left out at once.
    starts = np.cumsum(lengths) - lengths
    row = np.repeat(np.arange(len(array)), lengths)
    position = np.arange(len(ids)) - np.repeat(starts, lengths)
    kept = position < decoder.length
    tokens[row[kept], position[kept]] = ids[kept]
    # A model that attends to nothing returns NaN for such a row, long after anybody could tell why.
    if (empty := int((tokens == decoder.padding).all(1).sum())) > 0:
        raise _wrong(decoder.column, "at least one token that is no padding in every row", f"{empty} rows without any")
    return torch.from_numpy(tokens)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name not in batch.schema.names:
        raise _wrong(name, "a column of that name", f"columns {', '.join(batch.schema.names)}")
    array = batch.column(name)
    if array.null_count:
        raise _wrong(name, "a value in every row", f"{array.null_count} nulls")
    return array


def _is_list(stored: pa.DataType) -> bool:
    return bool(pa.types.is_list(stored) or pa.types.is_large_list(stored) or pa.types.is_fixed_size_list(stored))


def _rows_of_lists(array: pa.Array, column: str) -> np.ndarray:
    """(n, length of each list), in the lists' own number type."""
    sizes = pc.min_max(pc.list_value_length(array))
    shortest, longest = sizes["min"].as_py(), sizes["max"].as_py()
    if shortest != longest:
        raise _wrong(column, "lists of one length", f"lengths from {shortest} to {longest}")
    values = array.flatten()
    if values.null_count:
        raise _wrong(column, "a number in every place of a list", f"{values.null_count} nulls")
    if not len(array) and pa.types.is_fixed_size_list(array.type):
        longest = array.type.list_size
    return _numpy(values).reshape(len(array), longest or 0)


def _numpy(array: pa.Array) -> np.ndarray:
    # Booleans are stored as bits, which cannot be read in place.
    return np.asarray(array.to_numpy(zero_copy_only=not pa.types.is_boolean(array.type)))


def _float32(values: np.ndarray) -> np.ndarray:
    # What is too large becomes infinite, which is then reported with its column.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _bytes(buffer: pa.Buffer | None, start: int, rows: int, width: int) -> np.ndarray:
    if not rows or buffer is None:
        return np.empty((0, width), np.uint8)
    return np.frombuffer(buffer, np.uint8, rows * width, start).reshape(rows, width)


def _require_number(column: str, number: pa.DataType, stored: pa.DataType) -> None:
    if not (pa.types.is_integer(number) or pa.types.is_floating(number) or pa.types.is_boolean(number)):
        raise _wrong_type(column, "numbers", stored)


def _finite(values: Tensor, column: str) -> Tensor:
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise _wrong(column, "finite numbers", f"{bad} NaN or infinite values")
    return values


def _wrong_type(column: str, expected: str, stored: pa.DataType) -> TrainingDataError:
    return _wrong(column, expected, f"type {stored}")


def _wrong(column: str, expected: str, found: str) -> TrainingDataError:
    return TrainingDataError(
        f"Column {column!r} of the training data: expected {expected}, found {found}.",
        remedy="Correct the decoder in the training record, or the data.",
    )
