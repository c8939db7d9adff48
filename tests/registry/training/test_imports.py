"""Import strings: what the allow-list lets through, and what it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from oubli.components.model.samples import Samples
from oubli.registry.errors import FactoryNotAllowed
from oubli.registry.training.imports import resolve


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's package, importable, under a name that nothing else has."""
    name = "users_own_models"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "nets.py").write_text(
        "from subprocess import run\nfrom functools import partial\nWIDTH = 3\n"
        "def net(width=WIDTH):\n    return width\nhalf = partial(run)\n"
    )
    (folder / "broken.py").write_text("import a_module_that_is_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


def test_finds_what_is_allowed(package: str) -> None:
    assert resolve("oubli.components.model.samples:Samples", ["oubli"]) is Samples
    assert resolve("oubli.components.model.samples:Samples", ["torch", "oubli.components"]) is Samples
    assert resolve("oubli.components.model.samples:Samples", ["oubli.components.model.samples"]) is Samples
    assert resolve(f"{package}.nets:net", [package])(width=5) == 5


@pytest.mark.parametrize("prefix", ["oub", "oubli.comp", "oubli.components.model.samples.x", "", "o"])
def test_prefixes_match_whole_parts(prefix: str) -> None:
    with pytest.raises(FactoryNotAllowed, match=r"outside the allowed prefixes.*OUBLI_FACTORY_PREFIXES"):
        resolve("oubli.components.model.samples:Samples", [prefix])


def test_the_list_is_shown_and_the_module_not_imported(package: str) -> None:
    with pytest.raises(FactoryNotAllowed, match=r"\(oubli, torch\)"):
        resolve(f"{package}.nets:net", ["oubli", "torch"])
    assert f"{package}.nets" not in sys.modules
    with pytest.raises(FactoryNotAllowed, match=r"\(nothing\)"):
        resolve(f"{package}.nets:net", [])


@pytest.mark.parametrize("name", ["run", "half"])
def test_what_an_allowed_module_imported_is_not_its_own(package: str, name: str) -> None:
    with pytest.raises(FactoryNotAllowed, match=r"was defined in '(subprocess|functools)'"):
        resolve(f"{package}.nets:{name}", [package])


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("nothing:net", "cannot be imported: No module named 'users_own_models.nothing'"),
        ("broken:net", "cannot be imported: No module named 'a_module_that_is_not_installed'"),
        ("nets:nothing", "has no 'nothing'"),
        ("nets:WIDTH", "is int, not callable"),
    ],
)
def test_what_cannot_be_found_is_named(package: str, rest: str, message: str) -> None:
    with pytest.raises(FactoryNotAllowed, match=message):
        resolve(f"{package}.{rest}", [package])


@pytest.mark.parametrize(
    "text", ["", "oubli", "oubli:", ":x", "oubli.x.y", "oubli:a.b", "oubli..x:y", "../x:y", "a:b\n"]
)
def test_other_texts_are_no_import_strings(text: str) -> None:
    with pytest.raises(FactoryNotAllowed, match="not an import string"):
        resolve(text, ["oubli"])
