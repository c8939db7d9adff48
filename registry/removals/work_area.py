"""The work area of one outcome: what each stage of a removal wrote, so that a later run resumes there.

    <store>/work/<outcome>/<stage>/<file>
    <store>/work/<outcome>/<stage>/manifest.json     written last: the stage is finished when it is there

A manifest holds the SHA-256 of every file beside it and the stage's facts. Stages hand each other these, never
tensors, so any machine that reaches the store can take over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oubli.registry.errors import DigestMismatch, ObjectMissing
from oubli.registry.storage.digests import bytes_digest, file_digest
from oubli.registry.storage.scratch import temporary_folder
from oubli.registry.storage.stores import open_local, store_for
from oubli.registry.storage.uris import join

if TYPE_CHECKING:
    from collections.abc import Iterator

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class StageResult:
    """A finished stage: its folder, the SHA-256 of each of its files, and its facts (JSON values)."""

    stage: str
    root: str
    files: Mapping[str, str]
    facts: Mapping[str, Any]
    resumed: bool
    """True where an earlier run had already finished this stage."""

    def uri(self, name: str) -> str:
        return join(self.root, name)

    @contextmanager
    def open(self, name: str) -> Iterator[Path]:
        """A local path to one file, its digest verified.

        Raises DigestMismatch where the stored bytes are not those that the stage wrote.
        """
        with open_local(self.uri(name)) as path:
            found = file_digest(path)
            if found != self.files[name]:
                raise DigestMismatch(
                    f"{self.uri(name)} has SHA-256 {found}, but stage {self.stage!r} wrote {self.files[name]}.",
                    remedy=f"Delete the folder {self.root} and run the removal again.",
                )
            yield path


@dataclass(frozen=True)
class WorkArea:
    """The folder of one outcome. `root` is a URI."""

    root: str

    def finished(self, stage: str) -> StageResult | None:
        """What `stage` wrote, or None where it never finished, a file of it is gone, or what it was computed from is
        no longer what it was: a verdict must not outlive the weights it judged."""
        folder = join(self.root, stage)
        store = store_for(folder)
        try:
            manifest = json.loads(store.read(join(folder, _MANIFEST)))
        except ObjectMissing:
            return None
        if manifest["inputs"] != self._digests(manifest["inputs"]):
            return None
        if not all(store.exists(join(folder, name)) for name in manifest["files"]):
            return None
        return StageResult(stage, folder, manifest["files"], manifest["facts"], resumed=True)

    def require(self, stage: str) -> StageResult:
        """What `stage` wrote. Raises ObjectMissing where it has not finished."""
        result = self.finished(stage)
        if result is None:
            raise ObjectMissing(
                f"Stage {stage!r} has not finished in {self.root}.",
                remedy="Run the removal again; it resumes there.",
            )
        return result

    def run(
        self, stage: str, compute: Callable[[Path], Mapping[str, Any]], *, inputs: Sequence[str] = ()
    ) -> StageResult:
        """The stage's result, computed only where it is not there yet.

        `compute(folder)` writes its files into an empty local folder and returns the stage's facts. inputs: the stages
        whose results it reads.
        """
        if (earlier := self.finished(stage)) is not None:
            return earlier
        with temporary_folder() as folder:
            given = self._digests(inputs)
            facts = compute(folder)
            return self._publish(stage, folder, facts, given)

    def record(self, stage: str, facts: Mapping[str, Any], *, inputs: Sequence[str] = ()) -> StageResult:
        """Finish a stage that has facts and no files, replacing what an earlier run recorded."""
        with temporary_folder() as empty:
            return self._publish(stage, empty, facts, self._digests(inputs))

    def _digests(self, stages: Iterable[str]) -> dict[str, str]:
        """SHA-256 of each stage's manifest, which holds those of its files; empty where it has none."""
        digests = {}
        for stage in stages:
            uri = join(self.root, stage, _MANIFEST)
            store = store_for(uri)
            digests[stage] = bytes_digest(store.read(uri)) if store.exists(uri) else ""
        return digests

    def _publish(self, stage: str, folder: Path, facts: Mapping[str, Any], inputs: Mapping[str, str]) -> StageResult:
        target = join(self.root, stage)
        store = store_for(target)
        files = {}
        for path in sorted(folder.iterdir()):
            files[path.name] = file_digest(path)
            store.upload(path, join(target, path.name))
        manifest = json.dumps(
            {"stage": stage, "inputs": inputs, "files": files, "facts": facts}, indent=1, sort_keys=True
        )
        store.write(join(target, _MANIFEST), manifest.encode())
        # Read back what JSON made of the facts: a resumed run must see the very same values.
        return StageResult(stage, target, files, json.loads(manifest)["facts"], resumed=False)
