"""docs/architecture.md must not drift from the code: its picture, the paths and names in it, its examples."""

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest
import torch

from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatVelocity, StepCache
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.sampling.loop import Texts, denoise
from tests.unit.parallel.cases import Case, model_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flowcache"
TEXT = (ROOT / "docs" / "architecture.md").read_text()
BELOW_ALL = {"records", "errors", "masking"}


def rooms() -> dict[str, set[str]]:
    """The picture: each room, from the top, and which ones it imports."""
    lines = re.search(r"## The rooms.*?```\n(.*?)```", TEXT, re.S)[1].splitlines()
    return {line.split()[0]: set(re.split(r"\s{2,}", line)[-1].split()) - {"-"} for line in lines}


def layers() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    order = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [name.removeprefix("flowcache.") for name in order]


def imported(room: str) -> set[str]:
    """Rooms that the files of this one import, also for types alone or inside functions."""
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else (PACKAGE / room).rglob("*.py")
    modules: set[str] = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.ImportFrom):
            modules |= {node.module} if node.module != "flowcache" else {f"flowcache.{x.name}" for x in node.names}
        elif isinstance(node, ast.Import):
            modules |= {x.name for x in node.names}
    found = {name.split(".")[1] for name in modules if name and name.startswith("flowcache.")}
    return (found & {*layers()}) - BELOW_ALL - {room}


def test_the_rooms_stand_in_the_order_of_the_contract():
    assert list(rooms()) == [name for name in layers() if name not in BELOW_ALL]
    inside = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert inside - {"__init__"} == {*layers()}


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_what_the_picture_says(room):
    assert imported(room) == rooms()[room]


def paths(text: str) -> list[str]:
    """In backticks and in links. A name without a folder is one only in a link."""
    named = re.findall(r"`([\w.-]+/[\w./-]*)`", text)
    return named + [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]


def test_every_path_exists():
    found = paths(TEXT)
    assert len(found) > 60
    assert [path for path in found if not any((base / path).exists() for base in (PACKAGE, ROOT, ROOT / "docs"))] == []


def names_in(path: str) -> set[str]:
    """Classes and functions that a file defines."""
    tree = ast.parse((PACKAGE / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_the_way_of_a_video_names_what_is_there():
    table = TEXT.split("## The way of a video")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for _, by, where in rows:
        files = [path for path in paths(where) if path.endswith(".py")]
        missing = set(re.findall(r"`(\w+)`", by)) - set().union(*map(names_in, files))
        assert not missing, (missing, files)


def examples() -> list[tuple[str, str]]:
    return re.findall(r"<!-- from: (.*?) -->\n```python\n(.*?)```", TEXT, re.S)


def test_the_examples_stand_in_the_toys_package():
    assert [Path(file).name for file, _ in examples()] == ["forecast.py", "policies.py"]
    for file, text in examples():
        assert text in (ROOT / file).read_text(), file


@pytest.fixture
def forecast(monkeypatch) -> type[StepCache]:
    monkeypatch.syspath_prepend(ROOT / "tests" / "toy_family")
    return importlib.import_module("toy_family.forecast").ForecastVelocity


def test_the_example_continues_a_line(forecast):
    cache, at = forecast(1), torch.zeros(2)
    for step, computed in enumerate([True, False, True, False, False]):
        velocity = torch.tensor([1.0, 2.0]) + step if computed else None
        taken = cache.advance(at, velocity, lambda v: v)
        expected = 0 if step < 2 else step  # of one velocity there is no line yet
        assert torch.equal(taken, torch.tensor([1.0, 2.0]) + expected)


def test_the_example_continues_a_curve(forecast):
    cache, at = forecast(2), torch.zeros(1)
    for step, computed in enumerate([True, True, False, True, True, False, False]):
        curve = torch.tensor([float(step**2 - 3 * step)])
        taken = cache.advance(at, curve if computed else None, lambda v: v)
        if step > 2:
            torch.testing.assert_close(taken, curve)
    assert len(cache.computed) == 3


def test_the_example_goes_into_the_loop(forecast):
    case = Case("skyreels", Policy("off"), 2, 1, 2, 3, 4, 4, 3, 1, picture=False, end=False, seed=0)
    outs = {}
    for cache in (CacheOf(RepeatVelocity), CacheOf(forecast, (1,))):
        torch.manual_seed(0)
        policy = Policy("forecast", Reuse(1e9, 2, (1.0, 0.0)), "refresh", cache=cache)
        settings = SamplerSettings(steps=6, shift=3.0, guidance=1.0, ar_step=1, chunk=2, fps=24)
        model, noise = model_of(case), torch.randn(4, 6, 4, 4)
        chunks = list(denoise(model, noise, Texts(torch.randn(1, 3, 8)), settings, policy))
        assert [chunk.decisions for chunk in chunks] == [("110001",)] * 3
        outs[cache] = torch.cat([chunk.latents for chunk in chunks], dim=1)
    repeated, continued = outs.values()
    assert continued.isfinite().all() and not torch.equal(continued, repeated)
