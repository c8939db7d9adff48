"""What came of what was kept with the parent, where a step was tried from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from oubli.components.curvature.factors import FactorForm
from oubli.components.curvature.snapshots.snapshot import SnapshotForm
from oubli.components.removal.update import RemovalUpdate


@dataclass(frozen=True)
class Tried:
    """An update, or why there is none.

    Attributes:
        update: The weights and how they were found; None where nothing was tried, or it could not serve.
        form: Of the snapshot or the factor that the update went by.
        unused: Why nothing that was kept served; empty where it did, or none was wanted.
        factor: The tags that point to the factor on the store.
    """

    update: RemovalUpdate | None = None
    form: SnapshotForm | FactorForm | None = None
    unused: str = ""
    factor: dict[str, str] = field(default_factory=dict, repr=False)
