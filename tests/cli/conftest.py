"""The command sets environment variables; each test gives them back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    before = dict(os.environ)
    # Tables as wide as on a large terminal, and without colours.
    os.environ.update({"COLUMNS": "160", "TERMINAL_WIDTH": "160", "NO_COLOR": "1", "TERM": "dumb"})
    yield
    os.environ.clear()
    os.environ.update(before)
