"""When frames are decoded in tiles."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from flowcache.families import vae_tiling as room
from flowcache.families.memory import memory
from flowcache.families.registry import find, load_model
from flowcache.families.skyreels.weights import read_config
from flowcache.families.vae_tiling import TILE, choose_tile, what_fits
from tests.published import tiny_parts, write_official


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_official(tiny_parts(), tmp_path_factory.mktemp("room") / "SkyReels-V2-DF-tiny-540P")


@pytest.fixture
def spec(folder):
    return find(str(folder))


def test_whoever_asks_gets_it(spec):
    assert choose_tile("on", spec, (32, 32), "cpu", 4) == TILE
    assert choose_tile("off", spec, (8192, 8192), "cpu", 4) is None


def test_auto_tiles_where_the_largest_frames_do_not_fit(spec, folder, monkeypatch):
    """A device with room for 960x544, and not for 1280x720."""
    config = read_config(folder)
    need = memory(spec, config, 1).total
    device = SimpleNamespace(total_memory=int(need / room.USABLE) + 1)
    monkeypatch.setattr(room.torch.cuda, "get_device_properties", lambda name: device)
    assert choose_tile("auto", spec, (960, 544), "cuda", 2) is None
    assert choose_tile("auto", spec, (1280, 720), "cuda", 2) == TILE
    assert choose_tile("auto", spec, (960, 544), "cuda", 4) == TILE  # fp32 needs more
    assert memory(replace(spec, width=1280, height=720), config, 1).total > need


def test_auto_counts_the_machines_memory_without_a_gpu(spec):
    assert choose_tile("auto", spec, (64, 64), "cpu", 4) is None
    assert choose_tile("auto", spec, (2**20, 2**20), "cpu", 4) == TILE


def test_the_tile_reaches_the_codec(folder):
    assert load_model(str(folder), tile=TILE).codec.tile == TILE
    assert load_model(str(folder)).codec.tile is None


def test_who_runs_out_of_memory_is_told_what_would_fit(spec, folder, monkeypatch):
    large = replace(spec, width=1280, height=720)
    need = [memory(large, read_config(folder), ranks) for ranks in (1, 2)]
    for room_for, wanted in ((need[1].total, "--gang 2"), (1, "a budget for K/V")):
        monkeypatch.setattr(room, "total_memory", lambda device, room_for=room_for: room_for / room.USABLE)
        told = what_fits(large, "cuda", 1)
        assert f"Would fit: {wanted}" in told and str(need[0]) in told
