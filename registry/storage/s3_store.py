"""Objects in S3 buckets, on Amazon or any compatible server, through boto3.

Encryption at rest is left to the bucket's default.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from boto3.s3.transfer import TransferConfig

from oubli.registry.errors import ObjectMissing
from oubli.registry.storage.local_store import store_error, write_whole
from oubli.registry.storage.object_store import ObjectInfo
from oubli.registry.storage.s3_client import bucket_and_key, bucket_and_prefix, client_for, mapped_errors
from oubli.registry.storage.s3_conditional_writes import write_if_absent

_MIB = 1 << 20
# Parts of 16 MiB: a failed part is cheap to send again, and 10,000 of them hold 156 GiB (boto3 enlarges them beyond).
_TRANSFER = TransferConfig(multipart_threshold=16 * _MIB, multipart_chunksize=16 * _MIB, max_concurrency=4)


class S3Store:
    """ObjectStore on S3. Holds no state of its own; clients are shared within the process."""

    def read(self, uri: str) -> bytes:
        bucket, key = bucket_and_key(uri)
        client = client_for(uri)
        with mapped_errors(client, uri):
            return client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def write(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:
        bucket, key = bucket_and_key(uri)
        client = client_for(uri)
        if if_absent:
            write_if_absent(client, uri, data)
            return
        with mapped_errors(client, uri):
            client.put_object(Bucket=bucket, Key=key, Body=data)

    def upload(self, path: Path, uri: str) -> None:
        bucket, key = bucket_and_key(uri)
        client = client_for(uri)
        try:
            with path.open("rb") as file, mapped_errors(client, uri):
                client.upload_fileobj(file, bucket, key, Config=_TRANSFER)
        except OSError as error:
            raise store_error(error, str(path)) from error

    def download(self, uri: str, path: Path) -> None:
        bucket, key = bucket_and_key(uri)
        client = client_for(uri)

        def fill(file: BinaryIO) -> None:
            client.download_fileobj(bucket, key, file, Config=_TRANSFER)

        try:
            with mapped_errors(client, uri):
                write_whole(path, fill)
        except OSError as error:
            raise store_error(error, str(path)) from error

    def exists(self, uri: str) -> bool:
        bucket, key = bucket_and_key(uri)
        client = client_for(uri)
        try:
            with mapped_errors(client, uri):
                client.head_object(Bucket=bucket, Key=key)
        except ObjectMissing:
            return False
        return True

    def list(self, prefix_uri: str) -> Iterator[ObjectInfo]:
        bucket, key = bucket_and_prefix(prefix_uri)
        prefix = key.rstrip("/") + "/" if key.rstrip("/") else ""
        client = client_for(prefix_uri)
        with mapped_errors(client, prefix_uri):
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", []):
                    # Consoles make empty objects that end in a slash to stand for folders.
                    if not entry["Key"].endswith("/"):
                        yield ObjectInfo(f"s3://{bucket}/{entry['Key']}", entry["Size"])

    def move(self, source: str, target: str) -> None:
        from_bucket, from_key = bucket_and_key(source)
        to_bucket, to_key = bucket_and_key(target)
        client = client_for(source)
        if (from_bucket, from_key) == (to_bucket, to_key):
            return
        with mapped_errors(client, source):
            client.copy({"Bucket": from_bucket, "Key": from_key}, to_bucket, to_key, Config=_TRANSFER)
            client.delete_object(Bucket=from_bucket, Key=from_key)

    def delete(self, uri: str) -> None:
        bucket, key = bucket_and_key(uri)
        client = client_for(uri)
        with mapped_errors(client, uri):
            client.delete_object(Bucket=bucket, Key=key)
