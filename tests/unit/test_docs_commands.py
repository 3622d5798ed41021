"""Every `flowcache` line of the pages is one that the command line takes: its command, options and values exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from flowcache.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "training" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUP = typer.main.get_command(app)


def commands(page: Path) -> list[list[str]]:
    """Their arguments, up to a pipe, of lines in fences of a shell or without a language."""
    fences = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", page.read_text(), re.S | re.M)
    shells = [text for _, language, text in fences if language in {"", "console", "bash"}]
    lines = [line for text in shells for line in text.replace("\\\n", " ").splitlines()]
    found = [
        re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ |\.venv/bin/|timeout (?:-\S+ \S+ )?\S+ )*flowcache (.*)", line)
        for line in lines
    ]
    return [until(shlex.split(match[1], comments=True)) for match in found if match]


def until(words: list[str]) -> list[str]:
    ends = [number for number, word in enumerate(words) if word in {"|", ">", "&", "&&", "||", ";"}]
    return words[: min(ends, default=len(words))]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_its_commands_are_taken(page):
    for arguments in commands(page):
        name, command, rest = GROUP.resolve_command(GROUP.make_context("flowcache", ["status", "x"]), arguments)
        assert name and command and command.make_context(name, rest), arguments


def test_the_pages_that_teach_have_many():
    pages = ("README.md", "docs/tutorial.md", "docs/cookbook.md", "docs/operators.md")
    assert min(len(commands(ROOT / page)) for page in pages) >= 7


@pytest.mark.parametrize("wrong", ["rendre x", "render --ouput x", "plan x --gpus many", "sheet"])
def test_what_is_not_taken_would_be_seen(wrong):
    with pytest.raises(Exception, match="(?i)no such|valid|missing"):
        name, command, rest = GROUP.resolve_command(GROUP.make_context("flowcache", ["status", "x"]), wrong.split())
        command.make_context(name, rest)
