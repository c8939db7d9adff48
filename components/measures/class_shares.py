"""How much of each class a removal takes.

Axes: n training samples, m removed.
"""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from oubli.components.errors import ConfigurationError


def class_shares(removed: Tensor, training: Tensor) -> dict[int, float]:
    """Per class, the share of its training samples that are removed.

    Targets that are not classes have no shares: give the gate an empty mapping.

    Args:
        removed: (m,) integer or boolean labels of every sample removed since training.
        training: (n,) labels, likewise, of all that was trained on, the removed samples included.

    Returns:
        Shares above 0, up to 1, by label; classes of which none is removed are left out.

    Raises:
        ConfigurationError: labels have another dtype or shape, or more of a class is removed than there is.
    """
    taken, present = _counts(removed, "removed"), _counts(training, "training")
    shares = {}
    for label, count in taken.items():
        if count > present[label]:
            raise ConfigurationError(
                f"{count} samples of class {label} are removed, of {present[label]} in training.",
                remedy="Give the labels of all training samples, the removed ones included.",
            )
        shares[label] = count / present[label]
    return shares


def _counts(labels: Tensor, name: str) -> Counter[int]:
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        raise ConfigurationError(
            f"The {name} labels have dtype {labels.dtype} and shape {tuple(labels.shape)}; one class each is needed.",
            remedy="Count classes only where each sample has one, as an integer.",
        )
    return Counter(int(label) for label in labels.tolist())
