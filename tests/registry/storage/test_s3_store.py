"""What is particular to S3: credentials, endpoints, servers that ignore conditions."""

from __future__ import annotations

import http.server
import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from oubli.components.errors import ConfigurationError, OubliError
from oubli.registry.errors import (
    ObjectExists,
    ObjectMissing,
    StoreAccessDenied,
    StoreError,
    StoreFull,
    StoreUnreachable,
)
from oubli.registry.storage.s3_store import S3Store
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

SECRET = "not-the-secret-0123456789"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No AWS settings at all, neither from the environment nor from files nor from an instance role."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def keyed(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


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
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "amazonaws"
    bucket = s3_root.split("/")[2]
    for error in attempts(join(s3_root, "a"), tmp_path):
        assert type(error) is StoreAccessDenied
        assert endpoint in str(error)
        assert bucket in str(error)
        assert "AWS_SECRET_ACCESS_KEY" in error.remedy
        assert SECRET not in str(error)


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


@pytest.mark.s3
def test_a_download_that_finds_no_space_leaves_nothing(s3_root: str, tmp_path: Path) -> None:
    uri, target = join(s3_root, "a"), tmp_path / "target"
    store_for(uri).write(uri, bytes(100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StoreFull, match=str(target)):
            store_for(uri).download(uri, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.s3
def test_large_uploads_are_cut_into_parts(s3_root: str, tmp_path: Path) -> None:
    path, uri = tmp_path / "large", join(s3_root, "large")
    path.write_bytes(bytes(33 << 20))
    store_for(uri).upload(path, uri)
    bucket, key = uri[5:].split("/", 1)
    client = boto3.session.Session().client("s3", config=Config(connect_timeout=3))
    # The ETag of a multipart upload ends in the number of its parts.
    assert client.head_object(Bucket=bucket, Key=key)["ETag"].strip('"').endswith("-3")


@pytest.mark.s3
def test_folder_markers_are_not_objects(s3_root: str) -> None:
    bucket, key = s3_root[5:].split("/", 1)
    client = boto3.session.Session().client("s3")
    client.put_object(Bucket=bucket, Key=f"{key}/folder/", Body=b"")
    assert list(store_for(s3_root).list(s3_root)) == []
    client.delete_object(Bucket=bucket, Key=f"{key}/folder/")


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


class Careless(http.server.BaseHTTPRequestHandler):
    """An S3 server that stores objects and never heard of If-None-Match (as some gateways)."""

    objects: dict[str, tuple[bytes, dict[str, str]]]
    conditions: str  # "ignored", "rejected" or "answer lost"

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        conditional = self.headers["If-None-Match"] == "*"
        if conditional and self.conditions == "rejected":
            self.answer(501, b"<Error><Code>NotImplemented</Code></Error>")
            return
        if conditional and self.conditions == "answer lost" and self.path in self.objects:
            self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        metadata = {name: value for name, value in self.headers.items() if name.startswith("x-amz-meta-")}
        self.objects[self.path] = (data, metadata)
        if conditional and self.conditions == "answer lost":
            self.answer(503, b"<Error><Code>ServiceUnavailable</Code></Error>")
            return
        self.answer(200)

    def do_HEAD(self) -> None:
        self.answer(200, headers=self.objects[self.path][1])

    def do_DELETE(self) -> None:
        self.objects.pop(self.path, None)
        self.answer(204)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def careless(keyed: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[dict]:
    objects: dict[str, tuple[bytes, dict[str, str]]] = {}
    handler = type("Handler", (Careless,), {"objects": objects, "conditions": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield objects
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("careless", ["ignored", "rejected"], indirect=True)
def test_a_server_without_conditional_writes_is_found_out(careless: dict) -> None:
    for _ in range(2):
        with pytest.raises(StoreError, match="does not honour conditional writes") as caught:
            S3Store().write("s3://bucket/a", b"x", if_absent=True)
        assert not isinstance(caught.value, ObjectExists)
    # Neither the object nor the probe stays behind.
    assert careless == {}
    S3Store().write("s3://bucket/a", b"x")
    assert list(careless) == ["/bucket/a"]


@pytest.mark.parametrize("careless", ["answer lost"], indirect=True)
def test_a_retry_that_finds_its_own_first_attempt_has_succeeded(careless: dict) -> None:
    S3Store().write("s3://bucket/a", b"x", if_absent=True)
    assert careless["/bucket/a"][0] == b"x"
    with pytest.raises(ObjectExists):
        S3Store().write("s3://bucket/a", b"x", if_absent=True)
