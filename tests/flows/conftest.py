"""A workspace per test module: a home folder, a store (local, or real S3), and models trained in it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import blobs
import pytest

from oubli.flows.training.train import train
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join
from oubli.registry.training.writing import write_training_data

S3_VARIABLE = "OUBLI_TEST_S3_URL"


@pytest.fixture(scope="module", params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], str]
) -> Iterator[Settings]:
    """Settings of a fresh workspace. MLflow is a local file; objects and MLflow's artifacts are in the store."""
    home = tmp_path_factory.mktemp("home")
    store = ""
    if request.param == "s3":
        url = os.environ.get(S3_VARIABLE)
        if not url:
            pytest.skip(f"{S3_VARIABLE} is not set (for example s3://oubli-test/prefix, with AWS_* credentials)")
        store = join(url, secrets.token_hex(8))
    with pytest.MonkeyPatch.context() as patch:
        # For what reads settings itself: flows, and processes that tests start.
        patch.setenv("OUBLI_HOME", str(home))
        patch.setenv("OUBLI_STORE", store)
        # MLflow sets this one itself, for its children: without a value of ours it would be the last workspace's.
        patch.setenv("MLFLOW_TRACKING_URI", new_database(home))
        yield Settings()
    if store:
        objects = store_for(store)
        for entry in list(objects.list(store)):
            objects.delete(entry.uri)


@pytest.fixture(scope="module")
def data_uri(settings: Settings) -> str:
    """Training data on the store."""
    uri = join(settings.store_root, "data", "blobs.parquet")
    write_training_data(blobs.table(), uri, subject_column="person")
    return uri


@pytest.fixture(scope="module")
def convex(settings: Settings, data_uri: str) -> RegisteredVersion:
    """Version 1 of the model `convex`, champion."""
    return train(settings, blobs.spec("convex", data_uri))
