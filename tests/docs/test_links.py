"""What the documentation points at is there: files, headings within them, and names in the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if not path.is_relative_to(ROOT / "build")
)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)
_INCLUDE = re.compile(r"^```\{include\} (\S+)$", re.MULTILINE)
_CODE = re.compile(r"^(```+)\S*.*?^\1$", re.DOTALL | re.MULTILINE)
# Names of modules, functions and fields, and import strings such as oubli.flows.unlearn:unlearn.
_NAME = re.compile(r"\boubli(?:\.[A-Za-z_]\w*)+(?::[A-Za-z_]\w*)?")


def links(text: str) -> Iterator[str]:
    """The targets of a page's links and pictures, those inside of code left out."""
    prose = re.sub(r"`[^`\n]*`", "", _CODE.sub("", text))
    yield from (target for target in _LINK.findall(prose) if "://" not in target and not target.startswith("mailto:"))


def anchors(text: str) -> set[str]:
    """The fragments of a page's headings, as GitHub and the built site make them."""
    titles = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in _HEADING.findall(_CODE.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def resolve(name: str) -> object:
    """What a dotted name, or an import string, names."""
    steps = name.replace(":", ".").split(".")
    for length in range(len(steps), 0, -1):
        module = ".".join(steps[:length])
        try:
            found: object = import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
            continue
        for step in steps[length:]:
            # A field of a pydantic model is no attribute of its class.
            fields = getattr(found, "model_fields", {})
            found = fields[step] if step in fields else getattr(found, step)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in [*links(text), *_INCLUDE.findall(text)]:
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} is not there"
        assert there.is_relative_to(ROOT), f"{target} lies outside of the project"
        if fragment:
            assert fragment in anchors(there.read_text(encoding="utf-8")), f"{path or page.name} has no #{fragment}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_of_the_code_is_there(page: Path) -> None:
    for name in sorted(set(_NAME.findall(page.read_text(encoding="utf-8"))) - NOT_CODE):
        try:
            resolve(name)
        except (ImportError, AttributeError) as error:
            pytest.fail(f"{name}: {error}")


NOT_CODE = {
    # Tags, artifacts and files, which look like names of modules.
    "oubli.outcome",
    "oubli.removal_key",
}


def test_pages_have_links_and_names_to_look_at() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sum(1 for text in texts for _ in links(text)) > 40
    assert len({name for text in texts for name in _NAME.findall(text)}) > 30


def test_a_link_is_found_and_code_is_not_a_link() -> None:
    text = "[a](b.md#c) ![d](e.svg) `[f](g)` [h](https://i)\n```\n[j](k)\n```\n"
    assert list(links(text)) == ["b.md#c", "e.svg"]


def test_headings_make_fragments() -> None:
    assert anchors("# How fast L-FOCI selects\n## `a`: b?\n") == {"how-fast-l-foci-selects", "a-b"}


@pytest.mark.parametrize("name", ["oubli.components.nothing", "oubli.registry.settings.Settings.nothing", "oublier.x"])
def test_a_name_that_is_not_there_is_noticed(name: str) -> None:
    with pytest.raises((ImportError, AttributeError)):
        resolve(name)
