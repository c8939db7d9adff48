"""The work area of one removal: what each of its stages wrote, so that a later run resumes there.

    <store>/work/<removal key>/<stage>/<file>
    <store>/work/<removal key>/<stage>/manifest.json     written last: the stage is finished when it is there
    <store>/work/<removal key>/<stage>/checkpoints/...   how far a stage has come; gone when it is finished

A manifest holds the SHA-256 of every file beside it and the stage's facts. Stages hand each other these, never
tensors, so any machine that reaches the store can take over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from oubli.registry.errors import DigestMismatch, ObjectMissing
from oubli.registry.storage.digests import bytes_digest, file_digest
from oubli.registry.storage.scratch import temporary_folder
from oubli.registry.storage.stores import open_local, store_for
from oubli.registry.storage.uris import join

if TYPE_CHECKING:
    from collections.abc import Iterator

_MANIFEST = "manifest.json"

Facts = TypeVar("Facts")


@dataclass(frozen=True)
class StageResult(Generic[Facts]):
    """A finished stage.

    Attributes:
        files: SHA-256 of each of its files, by name.
        facts: What it found out, as JSON gives it back.
        resumed: Whether an earlier run had already finished it.
    """

    files: Mapping[str, str]
    facts: Facts
    resumed: bool


class _Manifest(BaseModel):
    """A stage's manifest. inputs: SHA-256 of the manifest of each stage that it read; empty where there was none."""

    stage: str
    inputs: dict[str, str]
    files: dict[str, str]
    facts: Any


@dataclass(frozen=True)
class WorkArea:
    """The folder of one removal.

    Attributes:
        root: Its URI.
    """

    root: str

    def finished(self, stage: str, facts_type: type[Facts] | TypeAdapter[Facts]) -> StageResult[Facts] | None:
        """What a stage wrote, if that can still be used.

        Args:
            stage: Name of the stage.
            facts_type: What its facts must fit.

        Returns:
            None where the stage never finished, one of its files is missing, its facts are those of another version
            of Oubli, or what it was computed from has changed: a verdict must not outlive the weights it judged.
        """
        manifest = self._manifest(stage)
        if manifest is None or manifest.inputs != self._digests(manifest.inputs):
            return None
        store = store_for(self.root)
        if not all(store.exists(self._uri(stage, name)) for name in manifest.files):
            return None
        try:
            facts = _adapter(facts_type).validate_python(manifest.facts)
        except ValidationError:
            # Computing the stage again is safe: whatever was made from it is then made again too.
            return None
        return StageResult(manifest.files, facts, resumed=True)

    def require(self, stage: str, facts_type: type[Facts] | TypeAdapter[Facts]) -> StageResult[Facts]:
        """What a stage wrote.

        Raises:
            ObjectMissing: It has not finished, or what it wrote cannot be used any more.
        """
        result = self.finished(stage, facts_type)
        if result is None:
            raise self._unfinished(stage)
        return result

    def run(
        self,
        stage: str,
        facts_type: type[Facts] | TypeAdapter[Facts],
        compute: Callable[[Path], Facts],
        *,
        inputs: Sequence[str] = (),
    ) -> StageResult[Facts]:
        """The result of a stage, computed only where it is not there yet.

        Args:
            stage: Name of the stage.
            facts_type: The type of its facts: a pydantic model, or an adapter of several.
            compute: Writes the stage's files into an empty local folder and returns its facts.
            inputs: The stages whose results it reads.
        """
        if (earlier := self.finished(stage, facts_type)) is not None:
            return earlier
        with temporary_folder() as folder:
            given = self._digests(inputs)
            facts = compute(folder)
            return self._publish(stage, facts_type, facts, given, folder)

    def record(
        self,
        stage: str,
        facts_type: type[Facts] | TypeAdapter[Facts],
        facts: Facts,
        *,
        inputs: Sequence[str] = (),
    ) -> StageResult[Facts]:
        """Finish a stage that has facts and no files, replacing what an earlier run recorded."""
        with temporary_folder() as empty:
            return self._publish(stage, facts_type, facts, self._digests(inputs), empty)

    def keep(self, stage: str, name: str, path: Path) -> None:
        """Put how far a stage has come beside its files, replacing what was kept under this name."""
        uri = self._checkpoint(stage, name)
        store_for(uri).upload(path, uri)

    @contextmanager
    def kept(self, stage: str, name: str) -> Iterator[Path | None]:
        """A local path to what `keep` put there; None where there is nothing."""
        uri = self._checkpoint(stage, name)
        if not store_for(uri).exists(uri):
            yield None
            return
        with open_local(uri) as path:
            yield path

    @contextmanager
    def open(self, stage: str, name: str) -> Iterator[Path]:
        """A local path to one file of a finished stage.

        Raises:
            ObjectMissing: The stage has not finished, or the file is missing.
            DigestMismatch: The stored bytes are not those that the stage wrote.
        """
        manifest = self._manifest(stage)
        if manifest is None:
            raise self._unfinished(stage)
        uri = self._uri(stage, name)
        with open_local(uri) as path:
            digest = file_digest(path)
            if digest != manifest.files[name]:
                raise DigestMismatch(
                    f"{uri} has SHA-256 {digest}, but stage '{stage!s}' wrote {manifest.files[name]}.",
                    remedy=f"Delete the folder {join(self.root, stage)} and run the removal again.",
                )
            yield path

    def _uri(self, stage: str, name: str) -> str:
        return join(self.root, stage, name)

    def _checkpoint(self, stage: str, name: str) -> str:
        return join(self.root, stage, "checkpoints", name)

    def _manifest(self, stage: str) -> _Manifest | None:
        """None where there is none, or one that this version of Oubli did not write."""
        uri = self._uri(stage, _MANIFEST)
        try:
            return _Manifest.model_validate(json.loads(store_for(uri).read(uri)))
        except (ObjectMissing, ValidationError):
            return None

    def _unfinished(self, stage: str) -> ObjectMissing:
        return ObjectMissing(
            f"Stage '{stage!s}' has not finished in {self.root}, or what it wrote there cannot be used any more.",
            remedy="Run the removal again; it resumes there.",
        )

    def _digests(self, stages: Iterable[str]) -> dict[str, str]:
        """SHA-256 of each stage's manifest, which holds those of its files; empty where it has none."""
        digests = {}
        for stage in stages:
            uri = self._uri(stage, _MANIFEST)
            store = store_for(uri)
            digests[str(stage)] = bytes_digest(store.read(uri)) if store.exists(uri) else ""
        return digests

    def _publish(
        self,
        stage: str,
        facts_type: type[Facts] | TypeAdapter[Facts],
        facts: Facts,
        inputs: dict[str, str],
        folder: Path,
    ) -> StageResult[Facts]:
        adapter = _adapter(facts_type)
        # Facts that JSON cannot hold finish nothing, and a resumed run must see the very same values.
        shown = json.loads(json.dumps(adapter.dump_python(facts, mode="json")))
        facts = adapter.validate_python(shown)
        store = store_for(self.root)
        files = {}
        for path in sorted(folder.iterdir()):
            files[path.name] = file_digest(path)
            store.upload(path, self._uri(stage, path.name))
        manifest = _Manifest(stage=stage, inputs=inputs, files=files, facts=shown)
        text = json.dumps(manifest.model_dump(), indent=1, sort_keys=True)
        store.write(self._uri(stage, _MANIFEST), text.encode())
        for entry in list(store.list(join(self.root, stage, "checkpoints"))):
            store.delete(entry.uri)
        return StageResult(files, facts, resumed=False)


def _adapter(facts_type: type[Facts] | TypeAdapter[Facts]) -> TypeAdapter[Facts]:
    return facts_type if isinstance(facts_type, TypeAdapter) else TypeAdapter(facts_type)
