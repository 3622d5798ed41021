"""Checkpoints as published, from the command line: rendered, looked through, refused."""

import shutil

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.e2e.rows import row, write
from tests.published import tiny_parts, write_diffusers, write_official

WRITERS = {"official": write_official, "diffusers": write_diffusers}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    torch.set_num_threads(1)
    parts, root = tiny_parts(), tmp_path_factory.mktemp("checkpoints")
    return {name: write(parts, root / name / "SkyReels-V2-DF-tiny-540P", 2) for name, write in WRITERS.items()}


@pytest.fixture
def small():
    """A video of two chunks in 32x32 pixels."""
    return row("v", frames=37, width=32, height=32)


def test_both_layouts_render_the_same_pixels(render, flowcache, originals, small, tmp_path):
    videos = []
    for name, folder in originals.items():
        made = render([small | {"policy": "paper:slow"}], "--model", folder, to=tmp_path / name)
        assert made.code == 0, made.err
        assert made.json["rendered"] == 2
        assert flowcache("verify", tmp_path / name, "--json").json["sound"]
        assert flowcache("export", tmp_path / name, "--to", tmp_path / f"{name}-mp4").code == 0
        with av.open(str(tmp_path / f"{name}-mp4" / "v.mp4")) as container:
            videos.append(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    one, other = (video.astype(int) for video in videos)
    assert one.shape == (37, 32, 32, 3) and one.std() > 1
    # Tensors are aligned differently in memory, so sums may round differently, and H.264 decides differently.
    assert np.abs(one - other).mean() < 0.5


def test_a_row_names_its_checkpoint_and_its_picture(render, originals, small, picture):
    made = render([small | {"model": str(originals["official"]), "image": str(picture)}])
    assert made.code == 0, made.err


@pytest.mark.parametrize("layout", ["official", pytest.param("diffusers", marks=pytest.mark.slow)])
def test_every_mode_renders(render, flowcache, originals, picture, tmp_path, layout):
    start = {"image": str(picture)}
    shots = [{"prompt": "a", "frames": 17}, {"prompt": "b", "frames": 20}, {"prompt": "c", "frames": 17, "cut": True}]
    size, end = {"width": 32, "height": 32, "steps": 2}, {"end_image": str(picture)}
    rows = [
        row("windows", **size, frames=97 + 20) | end,  # the second one is shorter
        row("together", **size, frames=37, ar_step=0) | start,
        row("dense", **size, frames=37, policy="dense") | start | end,
        row("unguided", **size, frames=17, guidance=1, policy="paper") | start | end,
        {"id": "shots", "shots": shots, "policy": "flowcache", **size},
    ]
    made = render(rows, "--model", originals[layout])
    assert made.code == 0, made.err
    assert made.json["rendered"] == 6 + 2 + 2 + 1 + 3
    assert flowcache("export", tmp_path / "out", "windows", "--to", tmp_path).code == 0
    went_on = row("on", **size, frames=20, video=str(tmp_path / "windows.mp4"))
    made = render([went_on, went_on | {"id": "to"} | end], "--model", originals[layout], to=tmp_path / "more")
    assert made.code == 0 and made.json["rendered"] == 2, made.err
    assert flowcache("verify", tmp_path / "out", "--json").json["sound"]


def test_check_reports_what_a_checkpoint_is(flowcache, originals):
    for name, folder in originals.items():
        found = flowcache("models", "check", folder, "--json")
        assert found.code == 0, found.err
        report = found.json
        assert (report["family"], report["layout"], report["problems"]) == ("skyreels", name, [])
        assert set(report["parts"]) == {"transformer", "vae", "text_encoder"}
        assert report["parts"]["transformer"]["precision"] == "F32"
        assert set(report["bytes_per_rank"]) == {"1", "2", "4", "8", "16"}
        assert set(report["steps_computed"]) == {"slow", "fast", "slow-noret", "fast-noret"}
        assert all(2 <= count <= 50 for count in report["steps_computed"].values())
        assert "gang of 2" in flowcache("models", "check", folder).out
    assert "multiples of 16" in flowcache("models", originals["official"]).out


@pytest.mark.slow
def test_precision_and_tiles_are_chosen_and_kept(render, originals, small, tmp_path):
    """The frame is one tile, so only the precision changes what comes out; both are refused when they change."""
    asked = {
        "plain": (), "half": ("--dtype", "bf16"), "tiled": ("--vae-tiling", "on"), "held": ("--weights", "int8"),
        "gang": ("--weights", "int8", "--gang", "2"),
    }  # fmt: skip
    chunks = {}
    for name, options in asked.items():
        made = render([small], "--model", originals["official"], *options, to=tmp_path / name)
        assert made.code == 0, made.err
        chunks[name] = [file.read_bytes() for file in sorted((tmp_path / name / "media" / "v").glob("*.m4s"))]
    assert chunks["plain"] == chunks["tiled"] and len({*map(str, chunks.values())}) >= 3
    assert len(chunks["gang"]) == len(chunks["held"]) and chunks["held"] != chunks["plain"]
    refused = render([small], "--model", originals["official"], "--weights", "fp8", to=tmp_path / "held")
    assert refused.code == 2 and "weights was int8 and is fp8" in refused.json["error"]
    refused = render([small], "--weights", "fp8", "--shard-weights", "--gang", "2")
    assert refused.code == 2 and "--weights: got fp8 with --shard-weights; accepted: one" in refused.json["error"]
    refused = render([small], "--model", originals["official"], "--dtype", "fp32", to=tmp_path / "half")
    assert refused.code == 2 and "dtype was bf16 and is fp32" in refused.json["error"]
    refused = render([small], "--dtype", "fp8")
    assert refused.code == 2 and "accepted: 'auto', 'bf16' or 'fp32'" in refused.json["error"]


def lose(shard):
    shard.unlink()


def swap_dtypes(shard):
    save_file({name: tensor.to(torch.int8) for name, tensor in load_file(shard).items()}, shard)


def reshape(shard):
    save_file({name: tensor.flatten() for name, tensor in load_file(shard).items()}, shard)


def smuggle(shard):
    torch.save({"weight": print}, shard)


DAMAGE = {lose: "is missing", swap_dtypes: "has dtype I8", reshape: "has shape", smuggle: "which can hold code"}


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_starts_nothing(render, flowcache, originals, small, tmp_path, damage, layout):
    folder = shutil.copytree(originals[layout], tmp_path / "model")
    shard = sorted((folder / {"official": "", "diffusers": "transformer"}[layout]).glob("*.safetensors"))[1]
    damage(shard)
    checked = flowcache("models", "check", folder, "--json")
    assert checked.code == 2 and {problem["file"] for problem in checked.json["problems"]} == {str(shard)}
    refused = render([small], "--model", folder)
    assert refused.code == 2 and shard.name in refused.json["error"] and DAMAGE[damage] in refused.json["error"]
    assert not (tmp_path / "out").exists()


def test_code_in_an_official_pickle_is_not_run(render, flowcache, originals, small, tmp_path):
    folder = shutil.copytree(originals["official"], tmp_path / "model")
    torch.save({"weight": print}, folder / "Wan2.1_VAE.pth")
    assert flowcache("models", "check", folder, "--json").code == 2
    refused = render([small], "--model", folder)
    assert refused.code == 2 and "Wan2.1_VAE.pth" in refused.json["error"] and "not run" in refused.json["error"]


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_what_is_no_checkpoint_is_said_so(flowcache, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    assert flowcache("models", "check", path).code == 2
    assert flowcache("models", path).code == 2


@pytest.mark.parametrize("layout", WRITERS)
def test_its_cost_is_planned(flowcache, originals, small, tmp_path, layout):
    manifest = write(tmp_path / "manifest.jsonl", [small])
    planned = flowcache("plan", manifest, "--model", originals[layout], "--json")
    assert planned.code == 0, planned.err
    assert planned.json["chunks"] == 2
