"""What a command's help shows as an example stands on a line of its own."""

import inspect

import pytest
import typer.main
from typer.testing import CliRunner

from flowcache.cli.main import app

WITH = {"render", "submit", "plan", "repair", "stop", "pause", "resume", "cancel", "skip", "prioritise", "add"}
EXAMPLES = {
    name: [line.strip() for line in inspect.cleandoc(command.callback.__doc__).splitlines() if line.startswith("    ")]
    for name, command in typer.main.get_command(app).commands.items()
}


@pytest.mark.parametrize("command", sorted(WITH))
def test_examples_can_be_copied(command):
    assert EXAMPLES[command] and all(line.startswith(f"flowcache {command}") for line in EXAMPLES[command])
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "160", "TERMINAL_WIDTH": "160"}).output
    assert {line.strip() for line in shown.splitlines()} >= set(EXAMPLES[command])


def test_others_have_none():
    assert {name for name, lines in EXAMPLES.items() if lines} == WITH
