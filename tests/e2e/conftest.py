import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from flowcache.cli.main import main
from flowcache.families import calibrations
from flowcache.families.registry import find
from tests.e2e.rows import write


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def flowcache(monkeypatch, capsys):
    """flowcache("render", ...) -> Result: the command line, in this process."""

    def call(*args) -> Result:
        monkeypatch.setattr(sys, "argv", ["flowcache", *map(str, args)])
        with pytest.raises(SystemExit) as exit:
            main()
        captured = capsys.readouterr()
        return Result(exit.value.code or 0, captured.out, captured.err)

    return call


@pytest.fixture
def checkpoint(tmp_path):
    """As tiny-skyreels is laid out, with random weights, of two chunks and four steps."""
    without = shutil.ignore_patterns(calibrations.FILE)  # it is for other weights
    folder = shutil.copytree(find("tiny-skyreels").path, tmp_path / "random-model", ignore=without)
    said = json.loads((folder / "flowcache.json").read_text())
    said |= {"name": "random", "steps": 4, "window": 6, "frames": 21, "ar_step": 2}
    (folder / "flowcache.json").write_text(json.dumps(said))
    draw = torch.Generator().manual_seed(0)
    for file in (folder / "transformer").glob("*.safetensors"):
        state = {name: 0.05 * torch.randn(x.shape, generator=draw) for name, x in load_file(file).items()}
        save_file(state, file)
    return folder


@pytest.fixture
def render(flowcache, cluster, tmp_path):
    """render(rows, *options) -> Result: a manifest of these rows into tmp_path / "out", as JSON."""

    def call(rows: list[dict], *options, to: Path | None = None) -> Result:
        manifest = write(tmp_path / "manifest.jsonl", rows)
        where = ("--output", to or tmp_path / "out", "--address", cluster)
        return flowcache("render", manifest, *where, "--gangs", "1", "--json", *options)

    return call


@pytest.fixture
def picture(tmp_path) -> Path:
    """A PNG of the model's size: a green disc on grey."""
    y, x = np.mgrid[:64, :64]
    pixels = np.full((64, 64, 3), 96, np.uint8)
    pixels[(x - 40) ** 2 + (y - 24) ** 2 < 150] = (32, 160, 64)
    Image.fromarray(pixels).save(tmp_path / "start.png")
    return tmp_path / "start.png"
