"""TOML files read into pydantic models, with errors that name file and field."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from oubli.components.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path, model: type[Model], *, overrides: Mapping[str, Any] | None = None) -> Model:
    """`path` as a `model`; `overrides`, from the command line, win over the file.

    Raises ConfigurationError where the file is missing, is not TOML, or does not fit.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"There is no file {path}.", remedy="Check the path.") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.", remedy="Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.", remedy="Correct the file.") from error
    try:
        return model.model_validate({**values, **(overrides or {})})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in entry['loc']) or 'the file'}: {entry['msg']}"
            for entry in error.errors(include_url=False)
        )
        raise ConfigurationError(f"{path} does not fit: {problems}.", remedy="Correct these fields.") from error
