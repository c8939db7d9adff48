"""Files that are kept beside a version, on the store under their digest.

    <store>/<folder>/<sha256>.<suffix>

A version's tags point to them by URI and digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oubli.registry.errors import DigestMismatch, ObjectMissing
from oubli.registry.storage.digests import file_digest
from oubli.registry.storage.stores import open_local, store_for
from oubli.registry.storage.uris import join

if TYPE_CHECKING:
    from oubli.registry.models.model_registry import RegisteredVersion


@dataclass(frozen=True)
class KeptFile:
    """One kind of file.

    Attributes:
        what: Its name in messages.
        folder: On the store.
        uri_tag: The tag that holds a file's URI.
        digest_tag: The tag that holds its SHA-256.
        without_it: What happens where it was deleted, for a remedy.
    """

    what: str
    folder: str
    uri_tag: str
    digest_tag: str
    without_it: str

    def store(self, store_root: str, path: Path) -> dict[str, str]:
        """Put a local file on the store.

        Args:
            store_root: URI of the store.
            path: The file; its suffix is kept.

        Returns:
            The version tags that point to it.

        Raises:
            StoreError: The store cannot be written.
        """
        digest = file_digest(path)
        uri = join(store_root, self.folder, f"{digest}{path.suffix}")
        store_for(uri).upload(path, uri)
        return {self.uri_tag: uri, self.digest_tag: digest}

    @contextmanager
    def opened(self, version: RegisteredVersion) -> Iterator[Path | None]:
        """A local copy of what a version's tags point to; None where it has none, or where it was deleted.

        Raises:
            DigestMismatch: The bytes are not those that were registered.
        """
        uri = version.tags.get(self.uri_tag)
        with ExitStack() as stack:
            path: Path | None = None
            if uri is not None:
                try:
                    path = stack.enter_context(open_local(uri))
                except ObjectMissing:
                    path = None
            if path is not None and (digest := file_digest(path)) != version.tags[self.digest_tag]:
                raise DigestMismatch(
                    f"The {self.what} of {version.label} at {uri} has SHA-256 {digest}, but "
                    f"{version.tags[self.digest_tag]} was registered.",
                    remedy=f"Restore the object, or delete it: {self.without_it}.",
                )
            yield path

    def tags_of(self, version: RegisteredVersion) -> dict[str, str]:
        """The tags of a version that point to its file; empty where it has none."""
        return {name: version.tags[name] for name in (self.uri_tag, self.digest_tag) if name in version.tags}
