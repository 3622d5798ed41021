"""docs/tutorial.md, done as a reader does it: files written, commands run one after another, what they say compared."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
STEP = re.compile(r"`([\w.-]+)`:\n\n```(?:json|python)\n(.*?)```|```console\n(.*?)```", re.S)


def said(shown: str, real: str) -> bool:
    """Whether a line of the page is one of the output: `...` stands for what differs, spaces for any space."""
    pattern = r"\s+".join(re.escape(word).replace(re.escape("..."), ".*") for word in shown.split())
    return re.search(rf"^\s*{pattern}\s*$", real, re.M) is not None


def test_the_page_has_files_and_commands():
    steps = STEP.findall(TEXT)
    assert {name for name, *_ in steps} >= {"rows.jsonl", "bad.jsonl", "more.jsonl"}
    assert sum(commands.count("$ ") for *_, commands in steps) > 12


@pytest.mark.slow
def test_the_tutorial(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name, content, commands in STEP.findall(TEXT):
        if name:
            (tmp_path / name).write_text(content)
        for block in re.split(r"^\$ ", commands, flags=re.M)[1:]:
            command, *shown = block.splitlines()
            ran = subprocess.run(
                ["bash", "-c", f"{command}\nexit $?"], cwd=tmp_path, capture_output=True, text=True,
                env={**os.environ, "PATH": path, "COLUMNS": "160"},
            )  # fmt: skip
            expected = re.search(r"# exit code (\d+)$", command)
            assert ran.returncode == (int(expected[1]) if expected else 0), (command, ran.stdout, ran.stderr)
            real = ran.stdout + ran.stderr
            assert [line for line in shown if line.strip() and not said(line, real)] == [], (command, real)
