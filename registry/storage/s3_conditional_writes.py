"""Writes that succeed only where no object is in place, and the proof that a server can do them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from oubli.registry.errors import ObjectExists, StoreError
from oubli.registry.storage.s3_client import bucket_and_key, error_code, mapped_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# 412 where an object is in place; 409 where another conditional write won while this one was under way.
_IN_PLACE = {"ConditionalRequestConflict", "PreconditionFailed", "412"}
# Metadata that tells a conditional write's own object from another writer's.
_WRITE_ID = "oubli-write"

# Endpoint and bucket of every server that was found to honour the condition.
_honouring: set[tuple[str, str]] = set()


def write_if_absent(client: S3Client, uri: str, data: bytes) -> None:
    """PutObject with If-None-Match: *, which the server settles between writers.

    Raises:
        ObjectExists: An object is in place that another writer put there.
        StoreError: The server does not honour the condition, or failed otherwise.
    """
    bucket, key = bucket_and_key(uri)
    _require_conditional_writes(client, bucket, uri)
    write_id = secrets.token_hex(16)
    try:
        with mapped_errors(client, uri):
            client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={_WRITE_ID: write_id})
    except StoreError as error:
        if error_code(error) not in _IN_PLACE:
            raise
        # When the answer to a write is lost, boto3's retry finds the first attempt's object: that is success.
        with mapped_errors(client, uri):
            found = client.head_object(Bucket=bucket, Key=key)["Metadata"].get(_WRITE_ID)
        if found != write_id:
            raise ObjectExists(f"{uri} is already in place.", remedy="Read it, or delete it.") from error


def _require_conditional_writes(client: S3Client, bucket: str, uri: str) -> None:
    """Prove once per endpoint and bucket that If-None-Match is honoured.

    A server that ignores the header answers 200 and overwrites, so two writers would both believe they were first.
    """
    server = (client.meta.endpoint_url, bucket)
    if server in _honouring:
        return
    _, key = bucket_and_key(uri)
    # Beside the object, because a policy may allow one prefix only.
    probe = f"{key}.conditional-write-probe-{secrets.token_hex(8)}"
    with mapped_errors(client, uri):
        client.put_object(Bucket=bucket, Key=probe, Body=b"")
    try:
        with mapped_errors(client, uri):
            client.put_object(Bucket=bucket, Key=probe, Body=b"", IfNoneMatch="*")
        honoured, answer = False, "it overwrote an object that was in place"
    except StoreError as error:
        if error_code(error) not in _IN_PLACE | {"NotImplemented", "501"}:
            raise
        honoured, answer = error_code(error) in _IN_PLACE, f"it answered {error_code(error)}"
    finally:
        with mapped_errors(client, uri):
            client.delete_object(Bucket=bucket, Key=probe)
    if not honoured:
        raise StoreError(
            f"{server[0]} does not honour conditional writes (If-None-Match: *): {answer}.",
            remedy="Use an S3 server that does (Amazon S3, Ceph 16 or later, MinIO since 2024): "
            "without them two workers could both take the same removal.",
        )
    _honouring.add(server)
