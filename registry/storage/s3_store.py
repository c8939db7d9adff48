"""Objects in S3 buckets, on Amazon or any compatible server, through boto3.

Endpoint, region and credentials come from the environment as boto3 reads it: AWS_ENDPOINT_URL_S3 before
AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), AWS_PROFILE, AWS_REGION, and
what a container or instance role provides. Encryption at rest is left to the bucket's default.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as boto_errors
from botocore.config import Config
from s3transfer.exceptions import RetriesExceededError

from oubli.components.errors import ConfigurationError
from oubli.registry.errors import (
    ObjectExists,
    ObjectMissing,
    StoreAccessDenied,
    StoreError,
    StoreFull,
    StoreUnreachable,
)
from oubli.registry.storage.local_store import store_error, write_whole
from oubli.registry.storage.object_store import ObjectInfo
from oubli.registry.storage.uris import scheme_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MIB = 1 << 20
# Parts of 16 MiB: a failed part is cheap to send again, and 10,000 of them hold 156 GiB (boto3 enlarges them beyond).
_TRANSFER = TransferConfig(multipart_threshold=16 * _MIB, multipart_chunksize=16 * _MIB, max_concurrency=4)
# Three attempts of 3 s each and the pauses between them: an endpoint that drops packets is given up within 15 s.
_CONNECT_SECONDS = 3
_READ_SECONDS = 60
_ATTEMPTS = 3

_DENIED = {
    "AccessDenied",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "403",
}
_MISSING = {"NoSuchBucket", "NoSuchKey", "NotFound", "404"}
_FULL = {"InsufficientCapacity", "QuotaExceeded", "XMinioStorageFull"}
# 412 where an object is in place; 409 where another conditional write won while this one was under way.
_IN_PLACE = {"ConditionalRequestConflict", "PreconditionFailed", "412"}
_NO_CREDENTIALS = (
    boto_errors.NoCredentialsError,
    boto_errors.PartialCredentialsError,
    boto_errors.CredentialRetrievalError,
    boto_errors.TokenRetrievalError,
    boto_errors.ProfileNotFound,
)
_NO_ANSWER = (
    boto_errors.ConnectionError,  # endpoint connection, connect timeout, proxy, TLS
    boto_errors.ConnectionClosedError,
    boto_errors.ReadTimeoutError,
    boto_errors.HTTPClientError,
    RetriesExceededError,  # a download whose connections kept breaking
)
# Metadata that tells a conditional write's own object from another writer's.
_WRITE_ID = "oubli-write"


def _split(uri: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key."""
    if scheme_of(uri) != "s3":
        raise ConfigurationError(f"{uri!r} is not an S3 URI.", remedy="Write s3://bucket/key.")
    bucket, _, key = uri[len("s3://") :].partition("/")
    if not bucket or ".." in key.split("/"):
        raise ConfigurationError(f"{uri!r} has no bucket, or a '..' step in its key.", remedy="Write s3://bucket/key.")
    return bucket, key


def _object(uri: str) -> tuple[str, str]:
    bucket, key = _split(uri)
    if not key:
        raise ConfigurationError(f"{uri!r} names a bucket, not an object.", remedy="Write s3://bucket/key.")
    return bucket, key


@lru_cache(maxsize=8)
def _client(environment: frozenset[tuple[str, str]]) -> S3Client:
    """One client per distinct AWS environment: making one takes a tenth of a second."""
    names = {name for name, _ in environment}
    options: dict[str, str] = {}
    if names & {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} and "AWS_REQUEST_CHECKSUM_CALCULATION" not in names:
        # Compatible servers older than 2025 reject the checksum trailers that boto3 adds of its own accord.
        options["request_checksum_calculation"] = "when_required"
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        **options,  # type: ignore[arg-type]
    )
    # A session of its own: boto3's default session is not safe to share between threads.
    return boto3.session.Session().client("s3", config=config)


def _connected(uri: str) -> S3Client:
    environment = frozenset(item for item in os.environ.items() if item[0].startswith("AWS_"))
    try:
        return _client(environment)
    except ValueError as error:
        raise ConfigurationError(
            f"The S3 endpoint for {uri} is not a URL: {error}.",
            remedy="Set AWS_ENDPOINT_URL_S3 to something like https://s3.example.com.",
        ) from error
    except _NO_CREDENTIALS as error:
        raise _denied(uri, "the default endpoint", str(error)) from error


def _denied(uri: str, endpoint: str, reason: str) -> StoreAccessDenied:
    return StoreAccessDenied(
        f"{endpoint} refused access to {uri} (bucket {_split(uri)[0]!r}): {reason}.",
        remedy="Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_PROFILE, "
        "and what the bucket's policy lets this key do.",
    )


def _translated(error: Exception, client: S3Client, uri: str) -> StoreError | ConfigurationError:
    endpoint = client.meta.endpoint_url
    if isinstance(error, boto_errors.ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        if code in _DENIED:
            return _denied(uri, endpoint, code)
        if code in _MISSING:
            # A copy concerns two buckets, and the server says which of them it means.
            bucket = error.response["Error"].get("BucketName", _split(uri)[0])
            what = f"bucket {bucket!r}" if code == "NoSuchBucket" else f"object {uri}"
            return ObjectMissing(f"No {what} at {endpoint}.", remedy="Check the URI and AWS_ENDPOINT_URL_S3.")
        if code in _FULL:
            return StoreFull(f"No space to write {uri} at {endpoint}: {code}.", remedy="Free space or raise the quota.")
        return StoreError(
            f"{endpoint} did not carry out {error.operation_name} on {uri}: {code}.",
            remedy="Run again; if it stays, look at the server's log.",
        )
    if isinstance(error, _NO_CREDENTIALS):
        return _denied(uri, endpoint, str(error))
    if isinstance(error, boto_errors.ParamValidationError):
        return ConfigurationError(f"{uri!r} is not a valid S3 URI: {error}", remedy="Write s3://bucket/key.")
    if isinstance(error, _NO_ANSWER):
        return StoreUnreachable(
            f"{endpoint} did not answer for {uri} after {_ATTEMPTS} attempts.",
            remedy="Check that the server runs, the network, and AWS_ENDPOINT_URL_S3.",
        )
    return StoreError(f"{uri}: {error}.", remedy="Check the S3 configuration.")


@contextmanager
def _mapped(client: S3Client, uri: str) -> Iterator[None]:
    try:
        yield
    except (boto_errors.BotoCoreError, boto_errors.ClientError, RetriesExceededError) as error:
        raise _translated(error, client, uri) from error


def _code(error: StoreError) -> str:
    cause = error.__cause__
    return cause.response.get("Error", {}).get("Code", "") if isinstance(cause, boto_errors.ClientError) else ""


class S3Store:
    """ObjectStore on S3. Holds no state of its own; clients are shared within the process."""

    def read(self, uri: str) -> bytes:
        bucket, key = _object(uri)
        client = _connected(uri)
        with _mapped(client, uri):
            return client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def write(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:
        bucket, key = _object(uri)
        client = _connected(uri)
        if if_absent:
            _require_conditional_writes(client, bucket, uri)
            _write_if_absent(client, uri, data)
            return
        with _mapped(client, uri):
            client.put_object(Bucket=bucket, Key=key, Body=data)

    def upload(self, path: Path, uri: str) -> None:
        bucket, key = _object(uri)
        client = _connected(uri)
        try:
            with path.open("rb") as file, _mapped(client, uri):
                client.upload_fileobj(file, bucket, key, Config=_TRANSFER)
        except OSError as error:
            raise store_error(error, str(path)) from error

    def download(self, uri: str, path: Path) -> None:
        bucket, key = _object(uri)
        client = _connected(uri)

        def fill(file: BinaryIO) -> None:
            client.download_fileobj(bucket, key, file, Config=_TRANSFER)

        try:
            with _mapped(client, uri):
                write_whole(path, fill)
        except OSError as error:
            raise store_error(error, str(path)) from error

    def exists(self, uri: str) -> bool:
        bucket, key = _object(uri)
        client = _connected(uri)
        try:
            with _mapped(client, uri):
                client.head_object(Bucket=bucket, Key=key)
        except ObjectMissing:
            return False
        return True

    def list(self, prefix_uri: str) -> Iterator[ObjectInfo]:
        bucket, key = _split(prefix_uri)
        prefix = key.rstrip("/") + "/" if key.rstrip("/") else ""
        client = _connected(prefix_uri)
        with _mapped(client, prefix_uri):
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", []):
                    # Consoles make empty objects that end in a slash to stand for folders.
                    if not entry["Key"].endswith("/"):
                        yield ObjectInfo(f"s3://{bucket}/{entry['Key']}", entry["Size"])

    def move(self, source: str, target: str) -> None:
        from_bucket, from_key = _object(source)
        to_bucket, to_key = _object(target)
        client = _connected(source)
        if (from_bucket, from_key) == (to_bucket, to_key):
            return
        with _mapped(client, source):
            client.copy({"Bucket": from_bucket, "Key": from_key}, to_bucket, to_key, Config=_TRANSFER)
            client.delete_object(Bucket=from_bucket, Key=from_key)

    def delete(self, uri: str) -> None:
        bucket, key = _object(uri)
        client = _connected(uri)
        with _mapped(client, uri):
            client.delete_object(Bucket=bucket, Key=key)


def _write_if_absent(client: S3Client, uri: str, data: bytes) -> None:
    """PutObject with If-None-Match: *, which the server settles between writers."""
    bucket, key = _object(uri)
    write_id = secrets.token_hex(16)
    try:
        with _mapped(client, uri):
            client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={_WRITE_ID: write_id})
    except StoreError as error:
        if _code(error) not in _IN_PLACE:
            raise
        # When the answer to a write is lost, boto3's retry finds the first attempt's object: that is success.
        with _mapped(client, uri):
            found = client.head_object(Bucket=bucket, Key=key)["Metadata"].get(_WRITE_ID)
        if found != write_id:
            raise ObjectExists(f"{uri} is already in place.", remedy="Read it, or delete it.") from error


_honouring: set[tuple[str, str]] = set()


def _require_conditional_writes(client: S3Client, bucket: str, uri: str) -> None:
    """Proves once per endpoint and bucket that If-None-Match is honoured.

    A server that ignores the header answers 200 and overwrites, so two writers would both believe they were first.
    """
    place = (client.meta.endpoint_url, bucket)
    if place in _honouring:
        return
    _, key = _object(uri)
    # Beside the object, because a policy may allow one prefix only.
    probe = f"{key}.conditional-write-probe-{secrets.token_hex(8)}"
    with _mapped(client, uri):
        client.put_object(Bucket=bucket, Key=probe, Body=b"")
    try:
        with _mapped(client, uri):
            client.put_object(Bucket=bucket, Key=probe, Body=b"", IfNoneMatch="*")
        honoured, answer = False, "it overwrote an object that was in place"
    except StoreError as error:
        if _code(error) not in _IN_PLACE | {"NotImplemented", "501"}:
            raise
        honoured, answer = _code(error) in _IN_PLACE, f"it answered {_code(error)}"
    finally:
        with _mapped(client, uri):
            client.delete_object(Bucket=bucket, Key=probe)
    if not honoured:
        raise StoreError(
            f"{place[0]} does not honour conditional writes (If-None-Match: *): {answer}.",
            remedy="Use an S3 server that does (Amazon S3, Ceph 16 or later, MinIO since 2024): "
            "without them two workers could both take the same removal.",
        )
    _honouring.add(place)
