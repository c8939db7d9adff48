"""Credentials, endpoints and URIs of S3, and what goes wrong with them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from oubli.components.errors import ConfigurationError, OubliError
from oubli.registry.errors import ObjectMissing, StoreAccessDenied, StoreUnreachable
from oubli.registry.storage.s3_store import S3Store
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

WRONG_SECRET = "not-the-secret-0123456789"


def attempts(uri: str, tmp_path: Path) -> list[OubliError]:
    """What each operation raises."""
    store = store_for(uri)
    source = tmp_path / "source"
    source.write_bytes(b"x")
    raised = []
    for attempt in (
        lambda: store.read(uri),
        lambda: store.write(uri, b"x"),
        lambda: store.write(uri, b"x", if_absent=True),
        lambda: store.exists(uri),
        lambda: list(store.list(uri)),
        lambda: store.upload(source, uri),
        lambda: store.download(uri, tmp_path / "target"),
        lambda: store.move(uri, uri + "-moved"),
        lambda: store.delete(uri),
    ):
        with pytest.raises(OubliError) as caught:
            attempt()
        raised.append(caught.value)
    assert not (tmp_path / "target").exists()
    return raised


@pytest.mark.s3
@pytest.mark.parametrize("known_key", [True, False])
def test_wrong_credentials(s3_root: str, known_key: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not known_key:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG_SECRET)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "amazonaws"
    bucket = s3_root.split("/")[2]
    for error in attempts(join(s3_root, "a"), tmp_path):
        assert type(error) is StoreAccessDenied
        assert endpoint in str(error)
        assert bucket in str(error)
        assert "AWS_SECRET_ACCESS_KEY" in error.remedy
        assert WRONG_SECRET not in str(error)


@pytest.mark.s3
def test_a_bucket_that_is_not_there(s3_root: str) -> None:
    uri = "s3://no-such-bucket-8c1f/a"
    store = store_for(uri)
    for attempt in (lambda: store.read(uri), lambda: list(store.list(uri)), lambda: store.write(uri, b"")):
        with pytest.raises(ObjectMissing, match="bucket 'no-such-bucket-8c1f'"):
            attempt()
    present = join(s3_root, "a")
    store.write(present, b"x")
    with pytest.raises(ObjectMissing, match="bucket 'no-such-bucket-8c1f'"):
        store.move(present, uri)
    assert store.read(present) == b"x"


def test_no_credentials(bare: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    for error in attempts("s3://bucket/a", tmp_path):
        assert type(error) is StoreAccessDenied
        assert "http://127.0.0.1:9" in str(error)
        assert "AWS_ACCESS_KEY_ID" in error.remedy


def test_an_unknown_profile(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreAccessDenied, match=r"nobody.*AWS_PROFILE"):
        S3Store().read("s3://bucket/a")


@pytest.fixture
def closed_port() -> Iterator[int]:
    # Bound and not listening: nobody else can take it, and connections are refused.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_an_endpoint_out_of_reach(keyed: None, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{closed_port}")
    with pytest.raises(StoreUnreachable, match=rf"127\.0\.0\.1:{closed_port} did not answer for s3://bucket/a"):
        S3Store().read("s3://bucket/a")


def test_the_specific_endpoint_goes_before_the_general_one(
    keyed: None, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{closed_port}")
    with pytest.raises(StoreUnreachable, match=str(closed_port)):
        S3Store().read("s3://bucket/a")


def test_an_endpoint_that_is_no_url(keyed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "not a url")
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL_S3"):
        S3Store().read("s3://bucket/a")


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3://bucket", "s3://bucket/", "/local/path"])
def test_uris_without_bucket_or_key_are_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"s3://bucket/key"):
        S3Store().read(uri)


def test_a_bucket_name_that_cannot_be(keyed: None) -> None:
    with pytest.raises(ConfigurationError, match="Invalid bucket name"):
        S3Store().read("s3://not a bucket/key")
