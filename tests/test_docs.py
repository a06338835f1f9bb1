"""The documents: pages that are found, links that lead somewhere, messages that exist."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.commands import PROJECT

DOCS = PROJECT / "docs"
SITE_LOADER = type("SiteLoader", (yaml.SafeLoader,), {})
SITE_LOADER.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
MESSAGES = re.findall(
    r"^\| `([^`]+)`(?: \(([^)]+)\))? \|", (DOCS / "troubleshooting.md").read_text("utf-8"), re.M
)


def _pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inner = nav.values() if isinstance(nav, dict) else nav
    return [page for each in inner for page in _pages(each)]


def test_every_page_is_in_the_menu_of_the_site() -> None:
    site = yaml.load((PROJECT / "mkdocs.yml").read_text(encoding="utf-8"), SITE_LOADER)
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert set(_pages(site["nav"])) == {page for page in there if not page.startswith("log/")}


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_page_leads_to_every_other(page: str) -> None:
    text = (PROJECT / page).read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((?:docs/)?([a-z_]+\.md)\)", text))
    there = {path.name for path in DOCS.glob("*.md")} - {"index.md", "python.md"}
    assert there <= linked | {Path(page).name}


def test_the_readme_is_short_and_shows_what_it_is() -> None:
    lines = (PROJECT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert any(line.startswith("```mermaid") for line in lines)


@pytest.mark.parametrize(
    "page", [PROJECT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.stem
)
def test_every_picture_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert [name for name in pictures if not (page.parent / name).is_file()] == []


def _constants() -> str:
    """Return the texts of all packages, of each f-string the fixed parts."""
    texts = [(PROJECT / "Makefile").read_text(encoding="utf-8")]
    for package in ("ocr", "trainers", "serve", "ray_jobs"):
        for file in (PROJECT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


def test_every_message_of_the_page_of_errors_is_one_that_we_print() -> None:
    said = _constants()
    ours = [message for message, whose in MESSAGES if not whose]
    assert len(ours) >= 20
    assert [message for message in ours if message not in said] == []
