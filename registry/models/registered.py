"""What a look-up in the model registry answers: a version, and what its run logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oubli.registry.models import tags


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model, as MLflow knows it."""

    name: str
    version: str
    run_id: str | None
    tags: Mapping[str, str]
    description: str

    @property
    def ancestors(self) -> tuple[str, ...]:
        """Versions that this one descends from, nearest first. Kept in a tag, because some may have been deleted."""
        return tuple(self.tags.get(tags.ANCESTORS, "").split(",")) if tags.ANCESTORS in self.tags else ()

    def child_tags(self) -> dict[str, str]:
        """The tags of a new version whose parent this one is."""
        return {
            tags.PARENT_VERSION: self.version,
            tags.ANCESTORS: ",".join((self.version, *self.ancestors)),
        }

    @property
    def label(self) -> str:
        """NAME/version."""
        return f"{self.name}/{self.version}"

    @property
    def uri(self) -> str:
        """The version's URI in MLflow."""
        return f"models:/{self.label}"


@dataclass(frozen=True)
class RunFigures:
    """What an MLflow run logged."""

    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """The last value of each."""
