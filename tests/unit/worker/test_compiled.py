"""A rank whose model's blocks are compiled: the same videos, whatever models come and go."""

import logging
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from flowcache.families import calibrations
from flowcache.families.registry import bundled, find
from flowcache.inputs.options import RunOptions
from flowcache.inputs.segments import plan
from flowcache.models import compile as compiling
from flowcache.models.compile import compile_blocks
from flowcache.records import RenderRequest, Shot
from flowcache.storage.media import decode
from flowcache.storage.objects.store import Store
from flowcache.worker.task import Task, WorkerSettings
from flowcache.worker.worker import COMPILED, RankWorker


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
    torch.set_num_threads(1)
    # For pytest's handlers of its log torch prints tensors that it can't, of 8 bits.
    monkeypatch.setattr(torch._logging._internal, "trace_log", logging.Logger("nobody's"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def counter(monkeypatch):
    """Counts graphs, and makes no kernels of them, which would take a minute."""
    found = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compiling, "compile_blocks", partial(compile_blocks, backend=found))
    return found


def task(model: str) -> Task:
    """The first segment of a short video."""
    spec = find(model)
    width, height = spec.width, spec.height
    frames = spec.first_chunk_frames + spec.chunk_frames
    policy = {"name": "off"}
    request = RenderRequest("v", (Shot("a red circle", frames),), width, height, spec.fps, 1, 3.0, 4, model, policy)
    return Task(request, plan(request, spec)[0], None, True)


def frames(folder: str, asked: Task, **options) -> np.ndarray:
    """What a gang of one renders."""
    store = Store(folder)
    worker = RankWorker(store, WorkerSettings("run", "hash", RunOptions(**options)), "gang", 0, 1)
    *chunks, marker = worker.render(asked)
    parts = [store.get(chunk.key) for chunk in chunks]
    return np.stack([frame for frame, _ in decode(store.get(marker.init_key), parts)]).astype(float)


def compare(folder, model: str, weights: str = "auto") -> None:
    asked, held = task(model), {"weights": weights}
    plain, compiled = (frames(f"{folder}/{on}", asked, compile=on, **held) for on in (False, True))
    # Of 255. Latents are equal to 1e-5 (tests/unit/families/test_compile.py); a lossy codec makes up to 0.17 of that.
    assert plain.std() > 10 and np.abs(plain - compiled).mean() < 0.5


@pytest.mark.long
@pytest.mark.parametrize("weights", ["auto", "int8", "fp8"])
@pytest.mark.parametrize("model", bundled())
def test_a_gang_of_one_renders_the_same(tmp_path, counter, model, weights):
    compare(tmp_path, model, weights)
    assert counter.frame_count == {"tiny-skyreels": 3, "tiny-magi": 2}[model]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.parametrize("weights", ["auto", "int8", "fp8"])
@pytest.mark.parametrize("model", bundled())
def test_it_renders_the_same_with_compiled_kernels(tmp_path, model, weights):
    compare(tmp_path, model, weights)


@pytest.mark.long
def test_models_that_come_and_go_share_graphs_and_do_not_use_up_what_torch_makes(tmp_path, counter, monkeypatch):
    """It makes eight of one function, and models of one shape need the same."""
    resets = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(counter.frame_count))
    models = {}
    for number in range(COMPILED + 2):
        folder = Path(shutil.copytree(find("tiny-skyreels").path, tmp_path / str(number)))
        (folder / calibrations.FILE).unlink()  # it is for other weights
        (folder / "flowcache.json").write_text((folder / "flowcache.json").read_text() + " " * number)
        models[str(number)] = str(folder)
    settings = WorkerSettings("run", "hash", RunOptions(compile=True), models=models)
    worker, asked = RankWorker(Store(f"{tmp_path}/out"), settings, "gang", 0, 1), task("tiny-skyreels")
    for name in [*models, *models][: COMPILED + 4]:
        worker._load(name)
    assert len(resets) == 1
    named = replace(asked.request, model="0")
    *_, marker = worker.render(replace(asked, request=named))
    worker._load("1")
    assert list(worker.render(replace(asked, request=replace(named, id="w", model="1"))))
    assert marker.chunks and counter.frame_count == 3
