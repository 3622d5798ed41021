"""Options that are numbers have both ends, which NaN is not between: exit code 2 and a sentence."""

import sys

import pytest
import typer.main

from flowcache.cli.main import app, main

COMMANDS = typer.main.get_command(app).commands
OPTIONS = [
    (name, option.opts[0])
    for name, command in COMMANDS.items()
    for option in command.params
    if option.param_type_name == "option" and option.type_descriptor.annotation is float
]


def test_there_are_some():
    assert ("links", "--expires") in OPTIONS and ("plan", "--tflops") in OPTIONS and len(OPTIONS) >= 6


@pytest.mark.parametrize("given", ["nan", "inf", "-inf", "1e308", "-1e308"])
@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_none_without_end(command, option, given, monkeypatch, capsys):
    needs = [] if command == "stop" else ["none"]
    monkeypatch.setattr(sys, "argv", ["flowcache", command, *needs, f"{option}={given}"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and f"'{option}'" in said and "equal to" in said
