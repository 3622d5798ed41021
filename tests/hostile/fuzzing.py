"""Random input of every kind that a person gives: what is drawn, and what must hold of each of it."""

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import typer.main
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowcache import api
from flowcache.cli.main import app, main
from flowcache.errors import FlowcacheError, InputError, MediaError, Problem
from flowcache.families.registry import find, folder_of
from flowcache.inputs.job import JobSpec, merged
from flowcache.inputs.readers import rows_of
from flowcache.inputs.sandbox import Sandbox
from flowcache.inputs.schema import Row, RowDefaults, ShotRow
from flowcache.inputs.told import Told
from tests.hostile.memory import growing_by_less_than, memory

SECONDS, MEMORY = 10, 1 << 30
ROOT = Path(__file__).parents[2]

# What is drawn

ODD_TEXTS = [
    "",
    " ",
    "\0",
    "\ud800",
    "a\x1b[31m",
    "../x",
    "/",
    "~",
    "~nobody/x",
    "none.png",
    "a.png",
    "http://127.0.0.1:9/x",
    "s3://",
    "http://[::1",
    "file://h/x",
    "off",
    "paper:fast",
    "paper:",
    "tiny-magi",
    "tiny-skyreels",
    "official",
    "all",
    "none",
    "crop",
    "end",
    "07:00",
    "nan",
    "1e999",
    "x" * 20_000,
    "\u202e",
    "\U0001f600",
]
texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=30)
numbers = (
    st.sampled_from([0, -1, 1, 9, 57, 64, 2**31, 2**63, 2**64, 10**400, 1e308, 5e-324, float("nan"), float("inf")])
    | st.integers()
    | st.floats()
)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)


def objects(names: list[str], inner: Any = values) -> Any:
    """Some of the names, few others."""
    return st.dictionaries(st.sampled_from(names) | st.sampled_from(names) | texts, inner, max_size=6)


POLICY = [
    "name",
    "preset",
    "threshold",
    "ret_steps",
    "warmup_steps",
    "reuse",
    "refresh",
    "renoise",
    "kv",
    "keep",
    "chunks",
    "by",
]
rows = objects(
    list(Row.model_fields),
    values
    | objects(POLICY, values | objects(POLICY))
    | st.lists(objects(list(ShotRow.model_fields), scalars), max_size=3),
)
jobs = objects(list(JobSpec.model_fields), values | objects(list(Row.model_fields), scalars))
YAML = [
    "!!int",
    "!!bool",
    "!!float",
    "!!timestamp",
    "!!binary",
    "!!set",
    "!!map",
    "!!python/name:os.system",
    "&a",
    "*a",
    "<<: *a",
    "2026-13-45",
    "9" * 5000,
    "[" * 50,
    "{a: ",
    "- ",
    "? ",
    ": ",
    "\n",
    "  ",
    "%YAML 3",
    "---",
    "...",
    "'",
    '"',
    "|",
    ">",
    "0x",
    "1:99",
    "manifest: m.csv\n",
    "output: o\n",
    "policy: ",
    "until: ",
    "gang: ",
    "defaults:\n  seed: ",
]
yamls = jobs.map(lambda job: yaml.safe_dump(job, allow_unicode=True)) | st.lists(
    st.sampled_from(YAML) | st.text(max_size=8), max_size=20
).map("".join)


@st.composite
def damaged(draw: Any, whole: tuple[bytes, ...]) -> bytes:
    """One of the files, with bytes replaced, cut or repeated."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 6))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        data[at : at + length] = draw(
            st.binary(max_size=12) | st.sampled_from([b"\xff" * 4, b"\0" * 8, b"\x7f\xff\xff\xff"])
        )
    return bytes(data)


# What must hold


def fine(problems: list[Problem]) -> None:
    """Sentences that any file and terminal can hold."""
    for problem in problems:
        assert problem.message and len(str(problem)) < 2000
        str(problem).encode()


GOOD = {"id": "the-good-one", "prompt": "a red circle"}


def row(drawn: list[dict]) -> None:
    """The good row among them stays good, unless another takes its id."""
    lines = [json.dumps(each) for each in (*drawn, GOOD)]
    Path("m.jsonl").write_text("\n".join(lines))
    good, problems, warnings, _ = api.check("m.jsonl", RowDefaults(), thorough=True)
    fine(problems + warnings)
    assert any(request.id == GOOD["id"] for request in good) or any(each.get("id") == GOOD["id"] for each in drawn)
    for each in drawn:  # as Python callers give them, of any types
        _, problems, _, _ = api.check([each], RowDefaults())
        fine(problems)


def job(drawn: str) -> None:
    Path("job.yaml").write_bytes(drawn.encode(errors="surrogatepass"))
    try:
        merged("job.yaml").run_options()
    except InputError as error:
        fine(error.problems)


def model(drawn: tuple[str, str, Any, int]) -> None:
    """One value of one file of a checkpoint is another."""
    file, key, value, whole = drawn
    source = folder_of("tiny-skyreels")
    if not Path("model").exists():
        shutil.copytree(source, "model")
    found = (source / file).read_text()
    Path("model", file).write_text(json.dumps(value if key == "" else json.loads(found) | {key: value}))
    try:
        try:
            find("model")
        except InputError as error:
            fine(error.problems)
        if whole == 0:
            for arguments in (["models", "check", "model"], ["plan", "m.csv", "--model", "model"]):
                code, said = command(arguments)
                assert code in (0, 2) and said
    finally:  # the next one has one fault, too
        Path("model", file).write_text(found)


def table(drawn: bytes, sandbox: Sandbox) -> None:
    for suffix in ("parquet", "csv", "jsonl"):
        Path(f"t.{suffix}").write_bytes(drawn)
        told = Told()
        found = list(rows_of(f"t.{suffix}", sandbox, told))
        fine(told.problems)
        assert found or told.problems


def media(drawn: bytes, sandbox: Sandbox) -> None:
    Path("media.bin").write_bytes(drawn)
    for kind in ("image", "video"):
        try:
            sandbox.probe(os.path.abspath("media.bin"), kind, "")
        except MediaError as error:
            assert str(error)


def command(arguments: list[str]) -> tuple[int, str]:
    """Exit code and all that is said. Gangs are never started, and `stop` finds nobody: others' nights may run here."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    begun = mock.patch("flowcache.api.run", side_effect=FlowcacheError("would begin now"))
    nobody = mock.patch("flowcache.cli.stop.drivers", return_value=[])
    with mock.patch.object(sys, "argv", ["flowcache", *arguments]), begun, nobody:
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
            try:
                main()
                code = 0
            except SystemExit as left:
                code = left.code or 0
    said = "".join(stream.buffer.getvalue().decode() for stream in streams)
    assert "Traceback" not in said
    return int(code), said


def words(drawn: list[str]) -> None:
    code, said = command(drawn)
    assert code in range(6) and (said or code == 0)


# All of it

COMMANDS = typer.main.get_command(app).commands
# Nothing outside the current folder is named, and no host that would be waited for.
ARGUMENTS = [
    "",
    " ",
    "\0",
    "\ud800",
    "\udcff",
    "out",
    "nodir/x",
    "m.csv",
    "m.jsonl",
    "job.yaml",
    "model",
    ".",
    "-1",
    "0",
    "1",
    "9" * 30,
    "1e999",
    "nan",
    "07:00",
    "x" * 5000,
    "file:x",
    "s3://",
    "s3://b//p",
    "memory://x",
    "ftp://h/x",
    "C:\\x",
    "http://127.0.0.1:9",
    "nonsense",
    "check",
    "auto",
    "cpu",
    "int8",
    "--",
    "-",
    "--help",
    "--json",
    "[red]",
    "tiny-magi",
    "nvlink4",
    "80GB",
]
arguments = st.sampled_from(ARGUMENTS) | st.text(max_size=12).filter(
    lambda text: not text.startswith(("/", "~")) and ".." not in text and "://" not in text
)


@st.composite
def lines(draw: Any) -> list[str]:
    """A command with some of its options, and what may come after them."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    found = [name]
    options = [option for option in COMMANDS[name].params if option.param_type_name == "option"]
    for option in draw(st.lists(st.sampled_from(options), max_size=4)):
        found.append(draw(st.sampled_from(option.opts)))
        if not option.is_flag:
            found.append(draw(arguments))
    return [*found, *draw(st.lists(arguments, max_size=2))]


@dataclass(frozen=True)
class Kind:
    drawn: Any
    check: Callable[..., None]
    parsing: bool = False  # by a child


def kinds(seeds: dict[str, tuple[bytes, ...]]) -> dict[str, Kind]:
    """seeds: sound files, of media and of tables."""
    source = folder_of("tiny-skyreels")
    files = [file.relative_to(source).as_posix() for file in sorted(source.rglob("*.json"))]
    keys = {file: ["", *json.loads((source / file).read_text())] for file in files}
    changes = st.sampled_from(files).flatmap(
        lambda file: st.tuples(st.just(file), st.sampled_from(keys[file]) | texts, values, st.integers(0, 99))
    )
    return {
        "rows": Kind(st.lists(rows, max_size=3), row),
        "jobs": Kind(yamls, job),
        "models": Kind(changes, model),
        "commands": Kind(lines(), words),
        "tables": Kind(damaged(seeds["tables"]) | st.binary(max_size=100), table, True),
        "media": Kind(damaged(seeds["media"]), media, True),
    }


def run(kind: Kind, examples: int, seed: int | None = None) -> int:
    """How many were tried. None may take more than SECONDS of CPU and MEMORY, nor all of them keep so much.

    Within the checks alone: Hypothesis remembers all that it drew, 389 MiB of 1,500 times some rows.
    """
    tried, kept, sandbox = 0, 0, Sandbox(most=1)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=seed is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.drawn)
    def holds(drawn: Any) -> None:
        nonlocal tried, kept
        tried, begin, before = tried + 1, time.process_time(), memory()
        with growing_by_less_than(MEMORY):
            kind.check(*([drawn, sandbox] if kind.parsing else [drawn]))
        kept += memory() - before
        assert time.process_time() - begin < SECONDS and kept < MEMORY

    with sandbox:
        (holds if seed is None else hypothesis.seed(seed)(holds))()
    return tried
