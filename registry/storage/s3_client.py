"""The S3 client of this process, the bucket and key of a URI, and the server's errors as Oubli's.

Endpoint, region and credentials come from the environment as boto3 reads it: AWS_ENDPOINT_URL_S3 before
AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), AWS_PROFILE, AWS_REGION, and
what a container or instance role provides.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import boto3
from botocore import exceptions as boto_errors
from botocore.config import Config
from s3transfer.exceptions import RetriesExceededError

from oubli.components.errors import ConfigurationError
from oubli.registry.errors import ObjectMissing, StoreAccessDenied, StoreError, StoreFull, StoreUnreachable
from oubli.registry.storage.uris import scheme_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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


def bucket_and_prefix(uri: str) -> tuple[str, str]:
    """The two parts of s3://bucket/prefix; the prefix may be empty.

    Raises:
        ConfigurationError: The URI has another scheme, no bucket, or a '..' step.
    """
    if scheme_of(uri) != "s3":
        raise ConfigurationError(f"{uri!r} is not an S3 URI.", remedy="Write s3://bucket/key.")
    bucket, _, key = uri[len("s3://") :].partition("/")
    if not bucket or ".." in key.split("/"):
        raise ConfigurationError(f"{uri!r} has no bucket, or a '..' step in its key.", remedy="Write s3://bucket/key.")
    return bucket, key


def bucket_and_key(uri: str) -> tuple[str, str]:
    """The two parts of s3://bucket/key.

    Raises:
        ConfigurationError: The URI has another scheme, no bucket, no key, or a '..' step.
    """
    bucket, key = bucket_and_prefix(uri)
    if not key:
        raise ConfigurationError(f"{uri!r} names a bucket, not an object.", remedy="Write s3://bucket/key.")
    return bucket, key


def client_for(uri: str) -> S3Client:
    """The client that this process's AWS environment describes; `uri` is named in errors.

    Raises:
        ConfigurationError: The endpoint is not a URL.
        StoreAccessDenied: The named profile or its credentials cannot be read.
    """
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


@contextmanager
def mapped_errors(client: S3Client, uri: str) -> Iterator[None]:
    """Turn what boto3 raises in the body into a StoreError or a ConfigurationError that names `uri`."""
    try:
        yield
    except (boto_errors.BotoCoreError, boto_errors.ClientError, RetriesExceededError) as error:
        raise _translated(error, client, uri) from error


def error_code(error: StoreError) -> str:
    """The server's code for an error that `mapped_errors` raised; empty where the server gave none."""
    cause = error.__cause__
    return cause.response.get("Error", {}).get("Code", "") if isinstance(cause, boto_errors.ClientError) else ""


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


def _denied(uri: str, endpoint: str, reason: str) -> StoreAccessDenied:
    return StoreAccessDenied(
        f"{endpoint} refused access to {uri} (bucket {bucket_and_prefix(uri)[0]!r}): {reason}.",
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
            bucket = error.response["Error"].get("BucketName", bucket_and_prefix(uri)[0])
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
