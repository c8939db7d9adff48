"""What is asked to be removed, resolved against the version it is asked of. Neither torch nor Prefect takes part, so
that what is wrong with a request is found before they are imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from oubli.registry.errors import RemovalSetError
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.removals.removal_set import RemovalSet, ResolvedRemoval, UnknownIds, read_removal_set
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.settings import Settings
from oubli.registry.training.training_record import TrainingRecord
from oubli.registry.training.training_rows import TrainingRows


@dataclass(frozen=True)
class Asked:
    """A removal set resolved against the version it is to be removed from.

    Attributes:
        before: What earlier versions removed, each id with the key of the removal that took it.
    """

    registry: ModelRegistry
    parent: RegisteredVersion
    record: TrainingRecord
    before: dict[str, str] = field(repr=False)
    resolved: ResolvedRemoval

    @property
    def counts(self) -> dict[str, int]:
        """What was asked for and cannot be removed, as facts and outcomes name it."""
        return {"already_removed": len(self.resolved.already_removed), "unknown": len(self.resolved.unknown_rows)}


def asked(
    settings: Settings, model: str, removal_set: RemovalSet, unknown_ids: UnknownIds, *, verify: bool = True
) -> Asked:
    """Resolve a removal set against a version and its training data.

    Args:
        settings: Of this process.
        model: NAME, NAME@alias or NAME/version.
        removal_set: May be empty.
        unknown_ids: What becomes of ids that are not in the training data.
        verify: Whether to check the digest of the training data.

    Raises:
        ConfigurationError: The model's name is malformed.
        RegistryError: No such model or version, or one that cannot be read.
        RemovalSetError: A removal set cannot be used, or nothing of the training data would be left.
        UnknownIdsError: A removal set names ids that are not in the training data.
        DataError: The training data or the training record is not what it should be.
        StoreError: The object store did not do what was asked.
    """
    registry = ModelRegistry(settings)
    parent = registry.resolve(model)
    record = registry.training_record(parent)
    before = removed_before(parent)
    ids = TrainingRows.find(record.dataset, verify=verify).ids()
    resolved = removal_set.resolve(ids, frozenset(before), unknown=unknown_ids)
    if len(resolved.new_ids) + len(before) >= len(ids):
        raise RemovalSetError(
            f"The removal set takes all {len(ids) - len(before)} samples that {parent.label} still holds.",
            remedy="Delete the model instead: nothing would be left to keep.",
        )
    return Asked(registry, parent, record, before, resolved)


def check_removals(settings: Settings, model: str, removals: Sequence[str], unknown_ids: UnknownIds) -> None:
    """Check removal files against a model before a removal is started.

    The digest of the training data is left to the removal itself.

    Args:
        settings: Of this process.
        model: NAME, NAME@alias or NAME/version.
        removals: URIs of removal sets.
        unknown_ids: What becomes of ids that are not in the training data.

    Raises:
        OubliError: As `asked` and `read_removal_set` do.
    """
    asked(settings, model, read_removal_set(removals), unknown_ids, verify=False)
