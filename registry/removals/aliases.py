"""Moving an alias to a version, without bringing removed samples back."""

from __future__ import annotations

from oubli.registry.errors import ModelNotFound
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import set_alias
from oubli.registry.removals.removed_ids import removed_before


def move_alias(registry: ModelRegistry, version: RegisteredVersion, alias: str) -> str:
    """Move `alias` to `version`, unless the version that holds it lacks samples which `version` still has.

    Args:
        registry: The model registry.
        version: The version to serve under the alias.
        alias: The alias to move.

    Returns:
        Empty where the alias moved; where it stayed, the reason and what to do about it.
    """
    try:
        holder = registry.by_alias(version.name, alias)
    except ModelNotFound:
        holder = None
    if holder is not None and holder.version != version.version:
        still_there = len(removed_before(holder).keys() - removed_before(version).keys())
        if still_there:
            return (
                f"The alias {alias!r} stays at version {holder.version}, which also removed {still_there} samples that "
                f"version {version.version} still has. Remove them from version {version.version} before it is served."
            )
    set_alias(registry, version, alias)
    return ""
