"""Look-ups in the embedded MLflow's database file, without importing MLflow.

MLflow's client is its documented way in, but costs two seconds of a CPU to import and another to open its store, where
reading a row costs nothing. Every look-up here answers what MLflow would, or None: then MLflow is asked, which finds it
or knows what is wrong. So it is where the tables are not those of a schema that this module was written for.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oubli.registry.models.registered import RegisteredVersion, RunFigures
from oubli.registry.settings import Settings

SCHEMAS = frozenset({"dc11669786a5"})
"""Revisions of MLflow's tables that the queries below were written for: MLflow 3.17."""

_SCHEME = "sqlite:///"
# Settings of MLflow's under which it looks elsewhere, or at some rows alone.
_ELSEWHERE = ("MLFLOW_REGISTRY_URI", "MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE")
# Rows that MLflow shows: of the one workspace of a local database, and not deleted.
_SHOWN = "workspace = 'default' AND current_stage != 'Deleted_Internal'"
_VERSIONS = f"SELECT version, run_id, description FROM model_versions WHERE {_SHOWN} AND name = ?"  # noqa: S608
_TAGS = "SELECT key, value FROM model_version_tags WHERE workspace = 'default' AND name = ? AND version = ?"
_ALIASES = "SELECT alias, version FROM registered_model_aliases WHERE workspace = 'default' AND name = ?"
_NAMES = """
    SELECT name FROM registered_models WHERE workspace = 'default' AND name NOT IN
    (SELECT name FROM registered_model_tags WHERE workspace = 'default' AND key = 'mlflow.prompt.is_prompt')
"""
_METRICS = "SELECT key, CASE WHEN is_nan THEN 'nan' ELSE value END FROM latest_metrics WHERE run_uuid = ?"


@dataclass(frozen=True)
class EmbeddedRegistry:
    """MLflow's own database file. Made by `of`."""

    path: Path | None
    """None where MLflow looks elsewhere; every answer is then None."""

    @classmethod
    def of(cls, settings: Settings) -> EmbeddedRegistry:
        """The file that the settings name."""
        uri = settings.tracking_uri
        embedded = uri.startswith(_SCHEME) and not any(map(os.environ.get, _ELSEWHERE))
        return cls(Path(uri.removeprefix(_SCHEME)).resolve() if embedded else None)

    def names(self) -> list[str] | None:
        """Every registered model, sorted, where there are some. A prompt, which MLflow keeps among them, is none."""
        return sorted(name for (name,) in self._rows(_NAMES)) or None

    def version(self, name: str, version: str) -> RegisteredVersion | None:
        """A version by its number."""
        found = self._versions(f"{_VERSIONS} AND version = ?", name, int(version)) if version.isdecimal() else []
        return found[0] if found else None

    def by_alias(self, name: str, alias: str) -> RegisteredVersion | None:
        """The version that holds an alias."""
        rows = self._rows(f"{_ALIASES} AND alias = ?", name, alias)
        return self.version(name, str(rows[0][1])) if rows else None

    def versions(self, name: str) -> list[RegisteredVersion] | None:
        """Every version of a model that has some, the last changed first, as MLflow lists them."""
        return self._versions(f"{_VERSIONS} ORDER BY last_updated_time DESC, version DESC", name) or None

    def aliases(self, version: RegisteredVersion) -> list[str] | None:
        """The aliases that a version holds, sorted."""
        if self.version(version.name, version.version) is None:
            return None
        return sorted(alias for alias, number in self._rows(_ALIASES, version.name) if str(number) == version.version)

    def run(self, run_id: str) -> RunFigures | None:
        """What a run logged."""
        if not self._rows("SELECT 1 FROM runs WHERE run_uuid = ?", run_id):
            return None
        params = self._rows("SELECT key, value FROM params WHERE run_uuid = ?", run_id)
        return RunFigures(dict(params), {key: float(value) for key, value in self._rows(_METRICS, run_id)})

    def _versions(self, query: str, name: str, *values: Any) -> list[RegisteredVersion]:
        return [
            RegisteredVersion(name, str(number), run_id or None, dict(self._rows(_TAGS, name, number)), text or "")
            for number, run_id, text in self._rows(query, name, *values)
        ]

    def _rows(self, query: str, *values: Any) -> Sequence[Any]:
        """The rows; none where the file cannot be read, or is of another schema."""
        if self.path is None:
            return []
        try:
            # Read only: the file is MLflow's.
            with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as connection:
                (schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
                return connection.execute(query, values).fetchall() if schema in SCHEMAS else []
        except sqlite3.Error:
            return []
