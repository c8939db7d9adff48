"""TOML files and options read into pydantic models, with errors that name the field."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from oubli.components.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path, model: type[Model], *, overrides: Mapping[str, Any] | None = None) -> Model:
    """Read a file as a model.

    Args:
        path: The TOML file.
        model: What its values must fit.
        overrides: Values from the command line, which win over the file.

    Raises:
        ConfigurationError: The file is missing, is not TOML, or does not fit.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"There is no file {path}.", remedy="Check the path.") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.", remedy="Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.", remedy="Correct the file.") from error
    return validated({**values, **(overrides or {})}, model, source=str(path), remedy="Correct these fields.")


def validated(values: Mapping[str, Any], model: type[Model], *, source: str, remedy: str) -> Model:
    """Values as a model.

    Args:
        values: By field.
        model: What they must fit.
        source: Where they come from, as the error says it.
        remedy: What to do where they do not fit, as the error says it.

    Raises:
        ConfigurationError: They do not fit; every wrong field is named, with its path.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in entry['loc']) or 'together'}: "
            f"{entry['msg'].removeprefix('Value error, ')}"
            for entry in error.errors(include_url=False)
        )
        raise ConfigurationError(f"{source} does not fit: {problems}.", remedy=remedy) from error
