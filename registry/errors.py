"""Every error that Oubli raises on purpose; those of the store, the data and the model registry are defined here.

    OubliError                    (oubli.components.errors)
    ├── ConfigurationError        (oubli.components.errors) a setting or an argument is wrong, or two of them conflict
    ├── StoreError                the object store did not do what was asked
    │   ├── ObjectMissing
    │   ├── ObjectExists          a conditional write found the object in place
    │   ├── StoreAccessDenied     credentials missing, wrong or expired
    │   ├── StoreUnreachable
    │   └── StoreFull
    ├── DataError                 stored data is not what was promised
    │   ├── RemovalSetError
    │   ├── UnknownIdsError       ids that are not in the training data
    │   ├── TrainingDataError
    │   ├── DigestMismatch        the bytes are not those that were recorded
    │   └── TrainingRecordError
    ├── RegistryError             the model registry lacks something, or refuses it
    │   ├── ModelNotFound
    │   ├── PickledModelRefused
    │   └── FactoryNotAllowed
    └── NumericalError            (oubli.components.errors) the mathematics cannot go on with this input
        ├── NonFiniteInput
        └── IndefiniteCurvature

Each message names the thing, what was expected, what was found, and the remedy.
"""

from __future__ import annotations

from oubli.components.errors import OubliError


class StoreError(OubliError):
    """The object store did not do what was asked."""


class ObjectMissing(StoreError):
    """No object has this URI."""


class ObjectExists(StoreError):
    """A conditional write found the object already in place."""


class StoreAccessDenied(StoreError):
    """The store refused the credentials: missing, wrong or expired."""


class StoreUnreachable(StoreError):
    """The store did not answer."""


class StoreFull(StoreError):
    """No space is left to write to."""


class DataError(OubliError):
    """Stored data is not what was promised."""


class RemovalSetError(DataError):
    """A removal set is missing, empty, unreadable or lacks an id column."""


class UnknownIdsError(DataError):
    """A removal set names ids that the training data does not hold."""


class TrainingDataError(DataError):
    """The training data is unreadable or lacks a promised column."""


class DigestMismatch(DataError):
    """The stored bytes are not those whose digest was recorded."""


class TrainingRecordError(DataError):
    """A model version has no training record, or one that cannot be read."""


class RegistryError(OubliError):
    """The model registry lacks something, or refuses it."""


class ModelNotFound(RegistryError):
    """No such registered model, version or alias."""


class PickledModelRefused(RegistryError):
    """The version holds its weights in a format that executes code when it is read."""


class FactoryNotAllowed(RegistryError):
    """An import string lies outside the allow-listed prefixes, or names nothing."""
