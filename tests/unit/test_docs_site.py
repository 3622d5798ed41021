"""The site of `make docs`, without mkdocs: its nav has every page once, and links lead to pages and pictures."""

import re
from pathlib import Path

import yaml

from tools.docs_site import for_site

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
PAGES = {page.name: for_site(page.read_text(), "docs") for page in sorted(DOCS.glob("*.md"))}
PAGES["index.md"] = for_site((ROOT / "README.md").read_text(), "")


def entries(nav: list | str | dict) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in entries(part)]


def test_every_page_is_in_the_nav_once():
    assert sorted(entries(CONFIG["nav"])) == sorted(PAGES)


def test_links_stay_within_the_site():
    found = [(name, link) for name, text in PAGES.items() for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", text)]
    assert len(found) > 100
    assert [(name, link) for name, link in found if link not in PAGES and not (DOCS / link).is_file()] == []


def test_what_lies_outside_is_named():
    written = "[why](../README.md#why), [a.py](../flowcache/api.py), [`B`](../CONTRIBUTING.md), [c](image.md)"
    assert for_site(written, "docs") == "[why](index.md#why), a.py (`flowcache/api.py`), `B`, [c](image.md)"
    assert (
        for_site("![a](docs/demo.webp) [b](docs/image.md#c) [d](#e)", "") == "![a](demo.webp) [b](image.md#c) [d](#e)"
    )


def test_nothing_is_fetched():
    """Neither when the site is built nor when it is read."""
    assert CONFIG["theme"]["font"] is False and CONFIG["plugins"] == ["search"]
    assert all((ROOT / hook).is_file() for hook in CONFIG["hooks"])
