"""A command line as somebody types it, planned and not run."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from flowcache.cli.main import main
from flowcache.inputs.sources import standard_input
from flowcache.storage.outlook import outlook


@dataclass(frozen=True)
class Tried:
    """requests: as the run's record would have them; states: what would be done, by id."""

    code: int
    requests: list[dict[str, Any]]
    states: dict[str, str]
    out: str
    err: str

    @property
    def ids(self) -> list[str]:
        return [request["id"] for request in self.requests]

    @property
    def prompts(self) -> list[str]:
        return [request["shots"][0]["prompt"] for request in self.requests]

    def each(self, field: str) -> list[Any]:
        return [request.get(field) for request in self.requests]


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """command("status", "out", stdin=b"") -> exit code, stdout, stderr. In this process."""

    def call(*words: object, stdin: bytes | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flowcache", *map(str, words)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            standard_input.cache_clear()
        code: Any = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def tried(command, monkeypatch, tmp_path) -> Callable[..., Tried]:
    """tried("night.jsonl", "--limit", 1): what `render ... --dry-run` makes of it, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, stdin: bytes | None = None, output: str = "out") -> Tried:
        found: list[dict[str, Any]] = []

        def seen(store, record, *rest):
            found.extend(record.requests)
            return outlook(store, record, *rest)

        monkeypatch.setattr("flowcache.api.outlook", seen)
        code, out, err = command("render", *words, "--output", output, "--dry-run", "--json", stdin=stdin)
        rows = json.loads(out).get("rows", []) if out.startswith("{") else []
        return Tried(code, found, {row["video_id"]: row["state"] for row in rows}, out, err)

    return call
