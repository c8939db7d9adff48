"""Looking things up in MLflow's model registry: versions, aliases, lineage, training records, weights.

What a version's tags mean is said in `tags.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oubli.components.errors import ConfigurationError
from oubli.registry.errors import DigestMismatch, ModelNotFound, PickledModelRefused, RegistryError, TrainingRecordError
from oubli.registry.models import tags
from oubli.registry.models.embedded import EmbeddedRegistry
from oubli.registry.models.registered import RegisteredVersion as RegisteredVersion
from oubli.registry.models.registered import RunFigures
from oubli.registry.storage.digests import bytes_digest
from oubli.registry.storage.scratch import temporary_folder
from oubli.registry.storage.stores import store_for
from oubli.registry.training.training_record import TrainingRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from torch import Tensor

    from oubli.registry.settings import Settings

TRAINED_ALIAS = "champion"
UNLEARNED_ALIAS = "challenger"

# MLflow's own messages repeat the URI they failed on.
_PASSWORDS = re.compile(r"://[^/\s]*@")


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

    What the embedded database answers is read from it directly; MLflow takes seconds to import, and is imported when it
    is first asked.

    Args:
        settings: Which MLflow server, or local database, holds the registry.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client: MlflowClient | None = None
        self._embedded = EmbeddedRegistry.of(settings)

    @property
    def client(self) -> MlflowClient:
        """MLflow's client; the process's tracking URI is set to the registry's."""
        import mlflow

        mlflow.set_tracking_uri(self.settings.tracking_uri)
        if self._client is None:
            self._client = mlflow.MlflowClient(self.settings.tracking_uri)
        return self._client

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
        return self._embedded.version(name, version) or self._found(
            name, f"version {version}", lambda client: client.get_model_version(name, version)
        )

    def by_alias(self, name: str, alias: str) -> RegisteredVersion:
        """The version that holds an alias.

        Raises:
            ModelNotFound: There is no such model, or no version holds the alias.
            RegistryError: MLflow failed.
        """
        return self._embedded.by_alias(name, alias) or self._found(
            name, f"alias {alias!r}", lambda client: client.get_model_version_by_alias(name, alias)
        )

    def head(self, name: str) -> RegisteredVersion:
        """The newest version of the served lineage: the challenger if it descends from the champion, else the champion.

        A removal that has not been promoted yet must not be lost by the next one.

        Raises:
            ModelNotFound: There is no such model, or it has no champion.
            RegistryError: MLflow failed.
        """
        champion = self.by_alias(name, TRAINED_ALIAS)
        challenger = self._challenger(name)
        return challenger if challenger is not None and champion.version in challenger.ancestors else champion

    def versions(self, name: str) -> list[RegisteredVersion]:
        """Every version of a model; none where it is not registered."""
        return self._embedded.versions(name) or [
            as_registered(version) for version in self.client.search_model_versions(f"name = '{name}'")
        ]

    def by_removal_key(self, name: str, key: str) -> RegisteredVersion | None:
        """The version that the removal with this key made, if it was registered."""
        versions = self.client.search_model_versions(f"name = '{name}' and tags.`{tags.REMOVAL_KEY}` = '{key}'")
        return as_registered(min(versions, key=lambda version: int(version.version))) if versions else None

    def aliases(self, version: RegisteredVersion) -> list[str]:
        """The aliases that a version holds, sorted."""
        if (known := self._embedded.aliases(version)) is not None:
            return known
        # A search leaves aliases empty; only this call fills them.
        return sorted(self.client.get_model_version(version.name, version.version).aliases)

    def run(self, version: RegisteredVersion) -> RunFigures | None:
        """What the run that made a version logged; None where no run belongs to it.

        Raises:
            RegistryError: MLflow failed.
        """
        if version.run_id is None:
            return None
        if (known := self._embedded.run(version.run_id)) is not None:
            return known
        data = self.client.get_run(version.run_id).data
        return RunFigures(data.params, data.metrics)

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
        import mlflow

        _ = self.client  # sets the tracking URI
        signature: ModelSignature | None = mlflow.models.get_model_info(version.uri).signature
        return signature

    def weights(self, version: RegisteredVersion) -> dict[str, Tensor]:
        """The version's state dict, read without unpickling.

        Raises:
            PickledModelRefused: The version is a pickle, and the settings do not allow reading one.
            RegistryError: The version holds no torch model.
        """
        import mlflow

        from oubli.registry.models.pt2_weights import read_pt2_weights

        _ = self.client  # sets the tracking URI
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

    def _challenger(self, name: str) -> RegisteredVersion | None:
        if self._embedded.versions(name) is not None:
            return self._embedded.by_alias(name, UNLEARNED_ALIAS)
        try:
            return self.by_alias(name, UNLEARNED_ALIAS)
        except ModelNotFound:
            return None

    def _found(self, name: str, what: str, look: Callable[[MlflowClient], ModelVersion]) -> RegisteredVersion:
        """What MLflow's client finds, or why it finds nothing."""
        if (known := self._embedded.names()) is not None and name not in known:
            raise self._unknown(name, known)
        from mlflow.exceptions import MlflowException

        try:
            return as_registered(look(self.client))
        except MlflowException as error:
            raise self._missing(error, name, what) from None

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
            return self._unknown(name, known)
        model = self.client.get_registered_model(name)
        aliases = ", ".join(f"@{alias} (version {number})" for alias, number in sorted(model.aliases.items()))
        versions = sorted(int(each.version) for each in self.client.search_model_versions(f"name = '{name}'"))
        return ModelNotFound(
            f"{name!r} has no {what}; it has versions {versions} and aliases {aliases or 'none'}.",
            remedy="Name one of these, or set the alias in MLflow.",
        )

    def _unknown(self, name: str, known: list[str]) -> ModelNotFound:
        listing = ", ".join(known[:10]) or "none at all"
        return ModelNotFound(
            f"No registered model is called {name!r}; MLflow at "
            f"{_without_password(self.settings.tracking_uri)} has: {listing}.",
            remedy="Check the name and MLFLOW_TRACKING_URI.",
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
