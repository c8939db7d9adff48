"""The numeric core needs none of what the other layers need."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, importlib.util, pkgutil, sys

for name in ("mlflow", "prefect", "boto3", "botocore", "pydantic", "pydantic_settings", "pyarrow", "sklearn",
             "typer", "rich", "fastapi", "oubli.registry", "oubli.flows", "oubli.cli", "oubli.infra"):
    sys.modules[name] = None  # any import of it now fails

import oubli.components

names = [one.name for one in pkgutil.walk_packages(oubli.components.__path__, "oubli.components.")]
if importlib.util.find_spec("triton") is None:
    names.remove("oubli.components.lfoci.engines.cuda")  # Triton comes with torch's CUDA build alone
for name in names:
    importlib.import_module(name)
print(*names)
"""


@pytest.mark.slow
def test_every_module_imports_without_the_other_layers():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    imported = done.stdout.split()
    assert "oubli.components.removal.newton" in imported
    assert "oubli.components.curvature.gauss_newton" in imported
    assert "oubli.components.lfoci.foci" in imported
