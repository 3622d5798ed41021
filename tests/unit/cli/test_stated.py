"""No option and no argument may be blank, as where a shell's variable was not set: exit code 2 and its name."""

import json

import pytest
import typer.main

from flowcache.cli.main import app

COMMANDS = typer.main.get_command(app).commands
TAKES_TEXT = [
    (name, param)
    for name, command in COMMANDS.items()
    for param in command.params
    if param.param_type_name == "argument" or not (param.is_flag or param.count)
]
IDS = [f"{name} {param.name}" for name, param in TAKES_TEXT]


def test_these_are_all():
    assert {"bench to", "calibrate work", "calibrate to", "export to", "status output", "render job"} <= set(IDS)


@pytest.mark.parametrize("blank", ["", " \t"])
@pytest.mark.parametrize(("command_name", "param"), TAKES_TEXT, ids=IDS)
def test_none_is_blank(command, tmp_path, monkeypatch, command_name, param, blank):
    monkeypatch.chdir(tmp_path)
    option = param.param_type_name == "option"
    arguments = [each for each in COMMANDS[command_name].params if each.param_type_name == "argument"]
    before = [] if option else ["out"] * arguments.index(param)
    code, out, _ = command(command_name, *before, f"{param.opts[0]}={blank}" if option else blank, "--json")
    assert code == 2
    assert [problem["file"] for problem in json.loads(out)["problems"]] == [param.opts[0] if option else param.name]
    assert not list(tmp_path.iterdir())


def test_what_is_not_given_is_not_blank(command):
    assert command("models")[0] == 0
    assert command("render", "--job", "nowhere.yaml", "--only", "a", "--only", "")[0] == 2
