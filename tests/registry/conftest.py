"""Stores to test against: local folders always, a real S3 server where the environment names one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

# No test is timed: an example may take as long as a busy machine makes it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

S3_VARIABLE = "OUBLI_TEST_S3_URL"


@pytest.fixture
def s3_root() -> Iterator[str]:
    """A fresh prefix on the S3 server; what a test leaves there is deleted."""
    url = os.environ.get(S3_VARIABLE)
    if not url:
        pytest.skip(f"{S3_VARIABLE} is not set (for example s3://oubli-test/prefix, with AWS_* credentials)")
    root = join(url, secrets.token_hex(8))
    store = store_for(root)
    yield root
    for entry in list(store.list(root)):
        store.delete(entry.uri)


@pytest.fixture(params=["path", "file", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty folder of each kind of store. Its name has characters that URIs escape."""
    if request.param == "s3":
        return join(request.getfixturevalue("s3_root"), "a folder #1")
    folder = tmp_path / "a folder #1"
    return str(folder) if request.param == "path" else folder.as_uri()
