"""Which held-out rows count where accuracy is compared.

On a class, or a person, that is removed, retraining loses as much as the update does: their rows say nothing of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oubli.flows.job.account import Account
from oubli.flows.job.data_side import DataSide
from oubli.registry.training.training_data import ParquetSamples
from oubli.registry.training.training_record import LabelKind, Split


def counted_rows(data: DataSide, account: Account, rows: ParquetSamples, gone: float) -> Tensor | None:
    """The rows that count.

    Args:
        data: The rows of the job.
        account: What was removed since training.
        rows: k held-out rows.
        gone: A class or a subject counts no more where at least this share of its training samples was removed.

    Returns:
        (k,) bool; None where all count.
    """
    classes = {label for label, share in account.class_shares.items() if share >= gone}
    subjects = _subjects_gone(data, account, gone)
    if not classes and not subjects:
        return None
    labels = _labels(data, rows) if classes else {}
    owners = _owners(data, rows.split) if subjects else {}
    counted = [labels.get(each) not in classes and owners.get(each) not in subjects for each in rows.ids()]
    return torch.tensor(counted, dtype=torch.bool)


def _labels(data: DataSide, rows: ParquetSamples) -> dict[str, int]:
    """The class of each row of the split, by id; empty where samples have no single class."""
    if data.record.label_kind is not LabelKind.CLASS:
        return {}
    ids, labels = data.table.labels_of(rows.split)
    return dict(zip(ids, labels.tolist(), strict=True)) if labels.ndim == 1 else {}


def _subjects_gone(data: DataSide, account: Account, gone: float) -> frozenset[str]:
    """Subjects that lost at least this share of their training samples."""
    found = set()
    for subject, own in (data.table.ids().samples_of or {}).items():
        trained = [each for each in own if each not in account.never_in_origin]
        lost = sum(each in account.removed_ids for each in trained)
        if lost and lost >= gone * len(trained):
            found.add(subject)
    return frozenset(found)


def _owners(data: DataSide, split: Split) -> dict[str, str]:
    """The subject of each row of a split, by id; empty where the data names none."""
    reference = data.table.reference
    if reference.subject_column is None:
        return {}
    table = data.table.rows_of(split)
    ids, subjects = (table.column(name).to_pylist() for name in (reference.id_column, reference.subject_column))
    return dict(zip(ids, subjects, strict=True))
