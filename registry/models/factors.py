"""The factor of a convex model's curvature, kept with the version that was trained and with those that come from it.

It decides how many passes a removal takes and never where it ends (`components.removal.convex`), so a whole chain of
removals goes by the one that was taken at training, or by the first removal where there was none.

It holds sums over the training samples, no sample by itself. What was removed is still in those sums: delete the object
to be rid of it, and the next removal takes a new one over what is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oubli.components.curvature.factors import restore_factor, take_factor
from oubli.components.errors import NumericalError
from oubli.components.model.frozen_head import on_head
from oubli.registry.models import tags
from oubli.registry.models.kept_files import KeptFile
from oubli.registry.models.kept_tensors import load_tensors, store_tensors

if TYPE_CHECKING:
    from oubli.components.curvature.factors import CurvatureFactor
    from oubli.components.model.objective import Objective
    from oubli.components.model.samples import SampleSource
    from oubli.registry.models.model_registry import RegisteredVersion

_FILE = KeptFile(
    "curvature factor",
    "factors",
    tags.FACTOR,
    tags.FACTOR_SHA256,
    without_it="a removal then passes over the retained samples",
)


def keep_factor(store_root: str, objective: Objective, source: SampleSource, *, budget_bytes: int) -> dict[str, str]:
    """Take the factor of a model on its training samples, and put it on the store.

    Args:
        store_root: URI of the store.
        objective: The model, at the weights that training ended with; of a frozen backbone's head, the head counts.
        source: The training samples.
        budget_bytes: What a head's features may take.

    Returns:
        The version tags that point to it; none where the model is too large for one. Where its curvature cannot be
        taken, why.
    """
    objective, source = on_head(objective, source, budget_bytes=budget_bytes)
    try:
        factor = take_factor(objective, objective.theta(), source)
    except NumericalError as error:
        return {tags.SNAPSHOT_MISSING: error.problem}
    return {} if factor is None else store_factor(store_root, factor)


def store_factor(store_root: str, factor: CurvatureFactor) -> dict[str, str]:
    """Put a factor on the store; the version tags that point to it."""
    return store_tensors(_FILE, store_root, factor.tensors(), factor.facts())


def load_factor(version: RegisteredVersion) -> CurvatureFactor | None:
    """The factor that a version points to; None where it has none, or where it was deleted.

    Raises:
        DigestMismatch: The bytes are not those that were registered.
        ConfigurationError: They hold no factor.
    """
    kept = load_tensors(_FILE, version)
    return None if kept is None else restore_factor(kept.tensors, kept.facts)


def factor_tags(version: RegisteredVersion) -> dict[str, str]:
    """The tags of a version that point to its factor; empty where it has none."""
    return _FILE.tags_of(version)
