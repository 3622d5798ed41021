"""Links and paths in the docs lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [page.name for page in PAGES]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_files_exist(page):
    """Of paths that begin with a folder of the repository or a room of the package."""
    bases = [ROOT, ROOT / "flowcache"]
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.py)`", page.read_text()))
    ours = [name for name in sorted(named) if any((base / name.partition("/")[0]).is_dir() for base in bases)]
    assert [name for name in ours if not any((base / name).exists() for base in bases)] == []
