"""One removal, fully named: what it is asked to do, and the key that identifies it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.removals.work_area import WorkArea
from oubli.registry.storage.digests import json_digest
from oubli.registry.storage.uris import join

_KEY_DIGITS = 32


class RemovalJob(BaseModel):
    """One removal, fully named: what the stages of a flow hand each other."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(description="The removal key: `removal_key` of what identifies the removal.")
    store_root: str = Field(description="Root URI of the object store.")
    model: str
    parent_version: str = Field(description="The version that the samples are removed from.")
    removal_digest: str = Field(description="Digest of the removed ids, under the store's secret key.")
    config: UnlearnConfig = Field(description="How it is done; `method` names the one way that it is done by.")
    audited: bool = Field(
        False,
        description="Whether auditors judge it: the model is a network, and its loss has a predictive distribution.",
    )

    @property
    def area(self) -> WorkArea:
        """Where the stages keep what they wrote."""
        return WorkArea(join(self.store_root, "work", self.key))


def removal_key(
    *,
    model: str,
    parent_version: str,
    weights_sha256: str,
    record_sha256: str,
    removal_digest: str,
    config: UnlearnConfig,
) -> str:
    """Name of a removal: the same request has the same name wherever and whenever it runs.

    Args:
        model: Name of the registered model.
        parent_version: The version that the samples are removed from.
        weights_sha256: Digest of that version's weights.
        record_sha256: Digest of its training record.
        removal_digest: Digest of the ids that are removed.
        config: How they are removed. Its alias has no part in the name.

    Returns:
        32 hexadecimal digits (128 bits).
    """
    identity = {
        "model": model,
        "parent_version": parent_version,
        "weights": weights_sha256,
        "record": record_sha256,
        "removals": removal_digest,
        "config": config.digest(),
    }
    return json_digest(identity)[:_KEY_DIGITS]
