"""Settings from the environment, each named `OUBLI_*`, with embedded defaults that need no server.

MLflow, Prefect and S3 keep their own variables (`MLFLOW_TRACKING_URI`, `PREFECT_API_URL`, `AWS_*`).
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from oubli import components
from oubli.components.errors import ConfigurationError

# Nothing that Oubli starts reports to its vendor unless the user says so.
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Settings(BaseSettings):
    """Where things are and what is allowed, for one process."""

    model_config = SettingsConfigDict(env_prefix="OUBLI_", frozen=True, extra="ignore")

    home: Path = Field(Path(".oubli"), description="Folder of the embedded MLflow, Prefect and store.")
    store: str = Field("", description="Root URI of the object store; empty for the folder HOME/store.")
    factory_prefixes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("oubli.components.reference",),
        description="Comma-separated packages that factories, losses and trainers may be imported from.",
    )
    allow_pickled_models: bool = Field(
        False, description="Read weights by unpickling. Unpickling runs whatever code the file holds."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where tensors live.")
    memory_mib: int = Field(1024, gt=0, description="MiB that one step may use for per-sample tensors.")

    @field_validator("factory_prefixes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @cached_property
    def store_root(self) -> str:
        """Root URI of the object store, without a trailing slash."""
        if "://" in self.store:
            return self.store.rstrip("/")
        # Absolute: what is stored names other objects by URI, and workers run in folders of their own.
        return (Path(self.store) if self.store else self.home / "store").resolve().as_uri()

    @cached_property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry URI."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.home / 'mlflow.db').resolve()}"

    @property
    def embedded_tracking(self) -> bool:
        """Whether MLflow is a local database file rather than somebody's server."""
        return self.tracking_uri.startswith(("sqlite:", "file:"))

    @property
    def memory_bytes(self) -> int:
        """Bytes that one step may use for per-sample tensors."""
        return self.memory_mib * 2**20

    def torch_device(self) -> str:
        """The device to compute on, as torch names it: a GPU where `auto` finds one."""
        import torch

        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"


def load_settings() -> Settings:
    """The settings of this process, from its environment.

    Raises:
        ConfigurationError: A variable has a wrong value. The message names the variable, its value and what was
            expected.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "OUBLI_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationError(
            f"{name}={first['input']!r} is not valid: {first['msg']}.", remedy=f"Correct or unset {name}."
        ) from error
    return settings


def prepare_environment(settings: Settings, *, console_logs: bool = True) -> None:
    """Set the variables that Prefect, MLflow and numba read when they are imported, where they are not set already.

    Args:
        settings: Of this process.
        console_logs: Whether Prefect and MLflow may log to the terminal.
    """
    defaults = QUIET | {
        "PREFECT_HOME": str((settings.home / "prefect").resolve()),
        # The first answer of an embedded server takes over 10 s on a busy two-core machine.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # MLflow's own bars for each artifact folder would cut through ours.
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # Its default of 7, each pause twice the last, keeps a person waiting for minutes on a server that is down.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    }
    kernels = Path(components.__file__).with_name("lfoci") / "engines"
    if not os.access(kernels, os.W_OK):
        # numba keeps compiled kernels beside their file; else they shall last as long as what else Oubli keeps.
        defaults["NUMBA_CACHE_DIR"] = str((settings.home / "kernels").resolve())
    if not console_logs:
        # The server keeps the logs; on the terminal only what a person asked for.
        defaults |= {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # Prefect makes its own folder in it, but not the folder itself.
    settings.home.mkdir(parents=True, exist_ok=True)
