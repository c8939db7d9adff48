"""Looking things up in MLflow's model registry: versions, aliases, lineage, training records, weights.

What a version's tags mean is said in `tags.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from oubli.components.errors import ConfigurationError
from oubli.registry.errors import DigestMismatch, ModelNotFound, PickledModelRefused, RegistryError, TrainingRecordError
from oubli.registry.models import tags
from oubli.registry.models.pt2_weights import read_pt2_weights
from oubli.registry.storage.digests import bytes_digest
from oubli.registry.storage.scratch import temporary_folder
from oubli.registry.storage.stores import store_for
from oubli.registry.training.training_record import TrainingRecord

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from torch import Tensor

    from oubli.registry.settings import Settings

TRAINED_ALIAS = "champion"
UNLEARNED_ALIAS = "challenger"

# MLflow's own messages repeat the URI they failed on.
_PASSWORDS = re.compile(r"://[^/\s]*@")


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


def parse_model(spec: str) -> tuple[str, str | None, str | None]:
    """The parts of NAME, NAME@alias or NAME/version.

    Returns:
        Name, alias and version; None for what `spec` does not say.

    Raises:
        ConfigurationError: `spec` is none of these.
    """
    name, at, alias = spec.partition("@")
    if at and alias and name and "/" not in spec and "@" not in alias:
        return name, alias, None
    name, slash, version = spec.partition("/")
    if not at and slash and version.isdigit() and name:
        return name, None, version
    if not at and not slash and name:
        return name, None, None
    raise ConfigurationError(
        f"{spec!r} does not name a registered model.",
        remedy="Write NAME, NAME@alias or NAME/version, for example digits-cnn@champion or digits-cnn/3.",
    )


class ModelRegistry:
    """Look-ups in MLflow's registry. Writing to it is the business of `registration.py`.

    Args:
        settings: Which MLflow server, or local database, holds the registry.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        mlflow.set_tracking_uri(settings.tracking_uri)
        self.client = MlflowClient(settings.tracking_uri)

    def resolve(self, spec: str) -> RegisteredVersion:
        """The version that NAME, NAME@alias or NAME/version means; a bare NAME means the head of its lineage.

        Raises:
            ConfigurationError: `spec` is none of these.
            ModelNotFound: There is no such version.
            RegistryError: MLflow failed.
        """
        name, alias, version = parse_model(spec)
        if alias is not None:
            return self.by_alias(name, alias)
        if version is not None:
            return self.version(name, version)
        return self.head(name)

    def version(self, name: str, version: str) -> RegisteredVersion:
        """A version by its number.

        Raises:
            ModelNotFound: There is no such model or version.
            RegistryError: MLflow failed.
        """
        try:
            return as_registered(self.client.get_model_version(name, version))
        except MlflowException as error:
            raise self._missing(error, name, f"version {version}") from None

    def by_alias(self, name: str, alias: str) -> RegisteredVersion:
        """The version that holds an alias.

        Raises:
            ModelNotFound: There is no such model, or no version holds the alias.
            RegistryError: MLflow failed.
        """
        try:
            return as_registered(self.client.get_model_version_by_alias(name, alias))
        except MlflowException as error:
            raise self._missing(error, name, f"alias {alias!r}") from None

    def head(self, name: str) -> RegisteredVersion:
        """The newest version of the served lineage: the challenger if it descends from the champion, else the champion.

        A removal that has not been promoted yet must not be lost by the next one.

        Raises:
            ModelNotFound: There is no such model, or it has no champion.
            RegistryError: MLflow failed.
        """
        champion = self.by_alias(name, TRAINED_ALIAS)
        try:
            challenger = self.by_alias(name, UNLEARNED_ALIAS)
        except ModelNotFound:
            return champion
        return challenger if champion.version in challenger.ancestors else champion

    def versions(self, name: str) -> list[RegisteredVersion]:
        """Every version of a model; none where it is not registered."""
        return [as_registered(version) for version in self.client.search_model_versions(f"name = '{name}'")]

    def by_removal_key(self, name: str, key: str) -> RegisteredVersion | None:
        """The version that the removal with this key made, if it was registered."""
        versions = self.client.search_model_versions(f"name = '{name}' and tags.`{tags.REMOVAL_KEY}` = '{key}'")
        return as_registered(min(versions, key=lambda version: int(version.version))) if versions else None

    def aliases(self, version: RegisteredVersion) -> list[str]:
        """The aliases that a version holds, sorted."""
        # A search leaves aliases empty; only this call fills them.
        return sorted(self.client.get_model_version(version.name, version.version).aliases)

    def training_record(self, version: RegisteredVersion) -> TrainingRecord:
        """The record that was stored when the version was trained.

        Raises:
            TrainingRecordError: There is none, or it cannot be read.
            DigestMismatch: It was altered.
            StoreError: The object store cannot be read.
        """
        uri = version.tags.get(tags.RECORD)
        if uri is None:
            raise TrainingRecordError(
                f"{version.label} has no training record, so nobody can tell what it was trained on.",
                remedy="Attach one with oubli.registry.attach_record (see README.md).",
            )
        data = store_for(uri).read(uri)
        if (digest := bytes_digest(data)) != version.tags[tags.RECORD_SHA256]:
            raise DigestMismatch(
                f"The training record of {version.label} at {uri} has SHA-256 {digest}, but "
                f"{version.tags[tags.RECORD_SHA256]} was registered.",
                remedy="Restore the object, or attach the right record again.",
            )
        return TrainingRecord.from_json(data)

    def signature(self, version: RegisteredVersion) -> ModelSignature | None:
        """The signature that a version was logged with, if any."""
        signature: ModelSignature | None = mlflow.models.get_model_info(version.uri).signature
        return signature

    def weights(self, version: RegisteredVersion) -> dict[str, Tensor]:
        """The version's state dict, read without unpickling.

        Raises:
            PickledModelRefused: The version is a pickle, and the settings do not allow reading one.
            RegistryError: The version holds no torch model.
        """
        with temporary_folder() as folder:
            root = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.uri, dst_path=str(folder)))
            if archives := sorted(root.rglob("*.pt2")):
                return read_pt2_weights(archives[0])
            if tensors := sorted(root.rglob("*.safetensors")):
                from safetensors.torch import load_file

                return load_file(tensors[0])
            if pickles := sorted(root.rglob("model.pth")):
                return self._unpickled(version, pickles[0])
        raise RegistryError(
            f"{version.label} holds no torch weights (neither .pt2 nor .safetensors).",
            remedy="Log it with mlflow.pytorch.log_model(..., serialization_format='pt2').",
        )

    def weights_if_there(self, version: RegisteredVersion) -> dict[str, Tensor] | None:
        """The version's state dict; None where its artifacts were deleted.

        Raises:
            RegistryError: As `weights`.
        """
        try:
            return self.weights(version)
        except FileNotFoundError:
            return None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _unpickled(self, version: RegisteredVersion, path: Path) -> dict[str, Tensor]:
        if not self.settings.allow_pickled_models:
            raise PickledModelRefused(
                f"{version.label} is stored as a pickle, and reading a pickle runs the code in it.",
                remedy="Log it again as pt2, or set OUBLI_ALLOW_PICKLED_MODELS=true if you trust its author.",
            )
        import torch

        module: Any = torch.load(path, map_location="cpu", weights_only=False)
        return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def _names(self) -> Iterator[str]:
        """Every registered model's; a search answers in pages."""
        token: str | None = None
        while True:
            page = self.client.search_registered_models(page_token=token)
            yield from (model.name for model in page)
            token = page.token
            if not token:
                return

    def _missing(self, error: MlflowException, name: str, what: str) -> RegistryError | ConfigurationError:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return RegistryError(
                f"MLflow at {_without_password(self.settings.tracking_uri)} failed: "
                f"{_PASSWORDS.sub('://', str(error))}.",
                remedy="Check MLFLOW_TRACKING_URI and that the server runs.",
            )
        known = sorted(self._names())
        if name not in known:
            listing = ", ".join(known[:10]) or "none at all"
            return ModelNotFound(
                f"No registered model is called {name!r}; MLflow at "
                f"{_without_password(self.settings.tracking_uri)} has: {listing}.",
                remedy="Check the name and MLFLOW_TRACKING_URI.",
            )
        model = self.client.get_registered_model(name)
        aliases = ", ".join(f"@{alias} (version {number})" for alias, number in sorted(model.aliases.items()))
        versions = sorted(int(each.version) for each in self.client.search_model_versions(f"name = '{name}'"))
        return ModelNotFound(
            f"{name!r} has no {what}; it has versions {versions} and aliases {aliases or 'none'}.",
            remedy="Name one of these, or set the alias in MLflow.",
        )


def as_registered(version: ModelVersion) -> RegisteredVersion:
    """MLflow's own object as a RegisteredVersion."""
    return RegisteredVersion(
        name=version.name,
        version=str(version.version),
        run_id=version.run_id or None,
        tags=dict(version.tags),
        description=version.description or "",
    )


def _without_password(uri: str) -> str:
    """`uri` as it may be shown: database URIs carry a password."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rsplit('@', 1)[-1]}"
