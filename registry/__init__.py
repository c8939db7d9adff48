"""Side effects: object storage, removal sets, training records, MLflow.

What is listed here is what other code calls. The modules below are where it stands; in them, names with a leading
underscore are private, and those not listed here may change without notice.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
    from oubli.registry.models.registration import attach_record
    from oubli.registry.models.trained_models import Provenance, register_trained
    from oubli.registry.removals.removal_set import RemovalSet, read_removal_set
    from oubli.registry.settings import Settings, load_settings
    from oubli.registry.storage.object_store import ObjectStore
    from oubli.registry.storage.stores import store_for
    from oubli.registry.training.train_spec import TrainSpec
    from oubli.registry.training.training_data import TrainingData
    from oubli.registry.training.training_record import (
        DatasetReference,
        FactoryReference,
        ImageDecoder,
        Sensitivity,
        Split,
        SplitRule,
        TokensDecoder,
        TrainingRecord,
        VectorDecoder,
    )
    from oubli.registry.training.writing import dataset_sha256, write_training_data

__all__ = [
    "DatasetReference",
    "FactoryReference",
    "ImageDecoder",
    "ModelRegistry",
    "ObjectStore",
    "Provenance",
    "RegisteredVersion",
    "RemovalSet",
    "Sensitivity",
    "Settings",
    "Split",
    "SplitRule",
    "TokensDecoder",
    "TrainSpec",
    "TrainingData",
    "TrainingRecord",
    "VectorDecoder",
    "attach_record",
    "dataset_sha256",
    "load_settings",
    "read_removal_set",
    "register_trained",
    "store_for",
    "write_training_data",
]

_RECORD = "training.training_record"
# Loaded when they are first used: MLflow and torch take seconds to import, and settings must be read before them.
_MODULES = {
    "DatasetReference": _RECORD,
    "FactoryReference": _RECORD,
    "ImageDecoder": _RECORD,
    "ModelRegistry": "models.model_registry",
    "ObjectStore": "storage.object_store",
    "Provenance": "models.trained_models",
    "RegisteredVersion": "models.model_registry",
    "RemovalSet": "removals.removal_set",
    "Sensitivity": _RECORD,
    "Settings": "settings",
    "Split": _RECORD,
    "SplitRule": _RECORD,
    "TokensDecoder": _RECORD,
    "TrainSpec": "training.train_spec",
    "TrainingData": "training.training_data",
    "TrainingRecord": _RECORD,
    "VectorDecoder": _RECORD,
    "attach_record": "models.registration",
    "dataset_sha256": "training.writing",
    "load_settings": "settings",
    "read_removal_set": "removals.removal_set",
    "register_trained": "models.trained_models",
    "store_for": "storage.stores",
    "write_training_data": "training.writing",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"oubli.registry.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'oubli.registry' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
