"""Where a version's lineage was last trained."""

from __future__ import annotations

from oubli.registry.models import tags
from oubli.registry.models.lineage import Method
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion

_GO_BACK = (Method.UNLEARNED.value, Method.RETRAINED_WARM.value)


def origin_of(registry: ModelRegistry, version: RegisteredVersion) -> RegisteredVersion | None:
    """The trained or retrained version that a version comes from, maybe itself; None where it was deleted.

    A version that was retrained from another's weights goes back to those: its training began with what they knew.
    """
    versions = {each.version: each for each in registry.versions(version.name)}
    for number in (version.version, *version.ancestors):
        found = versions.get(number)
        if found is None or found.tags.get(tags.METHOD) not in _GO_BACK:
            return found
    return None
