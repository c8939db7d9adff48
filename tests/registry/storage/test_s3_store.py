"""What is particular to objects on S3: parts, folder markers, downloads that find no space."""

from __future__ import annotations

import resource
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from oubli.registry.errors import StoreFull
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join


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
