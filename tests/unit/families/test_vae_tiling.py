"""When frames are decoded in tiles."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from flowcache.families import vae_tiling as room
from flowcache.families.memory import GIB, memory
from flowcache.families.registry import find, load_model
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.weights import read_config
from flowcache.families.vae_tiling import TILE, choose_tile, what_fits
from flowcache.records import Precision
from tests.published import tiny_parts, write_official


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_official(tiny_parts(), tmp_path_factory.mktemp("room") / "SkyReels-V2-DF-tiny-540P")


@pytest.fixture
def spec(folder):
    return find(str(folder))


def test_whoever_asks_gets_it(spec):
    assert choose_tile("on", spec, (32, 32), "cpu") == TILE
    assert choose_tile("off", spec, (8192, 8192), "cpu") is None


def test_auto_tiles_where_the_largest_frames_do_not_fit(spec, folder, monkeypatch):
    """A device with room for 960x544, and not for 1280x720."""
    config = read_config(folder)
    need = memory(spec, config, 1).total
    device = SimpleNamespace(total_memory=int(need / room.USABLE) + 1)
    monkeypatch.setattr(room.torch.cuda, "get_device_properties", lambda name: device)
    assert choose_tile("auto", spec, (960, 544), "cuda") is None
    assert choose_tile("auto", spec, (1280, 720), "cuda") == TILE
    assert choose_tile("auto", spec, (960, 544), "cuda", Precision("fp32")) == TILE  # needs more
    assert choose_tile("auto", spec, (1280, 720), "cuda", Precision(vae_dtype="bf16")) is None  # the VAE half of it
    assert memory(replace(spec, width=1280, height=720), config, 1).total > need


def test_auto_counts_the_machines_memory_without_a_gpu(spec):
    assert choose_tile("auto", spec, (64, 64), "cpu") is None
    assert choose_tile("auto", spec, (2**20, 2**20), "cpu") == TILE


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_auto_counts_weights_of_8_bits_as_they_are_held(spec, dtype, monkeypatch):
    """14B at 960x544: with 8 bits whole frames fit where they would not otherwise."""
    large = SkyReelsConfig(5120, 13824, 40, 40)
    monkeypatch.setattr(room, "config_of", lambda spec: large)
    whole, eight = (memory(spec, large, 1, precision=Precision(dtype, kind)) for kind in ("auto", "int8"))
    assert whole.weights - eight.weights > (12 if dtype == "bf16" else 38) * GIB
    for size, kinds in ((eight.total + 1, ("int8",)), (whole.total + 1, ("int8", "auto")), (eight.total - GIB, ())):
        monkeypatch.setattr(room, "total_memory", lambda device, size=size: size / room.USABLE)
        for kind in ("int8", "auto"):
            tile = choose_tile("auto", spec, (960, 544), "cuda", Precision(dtype, kind))
            assert tile == (None if kind in kinds else TILE)


def test_the_tile_reaches_the_codec(folder):
    assert load_model(str(folder), tile=TILE).codec.tile == TILE
    assert load_model(str(folder)).codec.tile is None


def test_who_runs_out_of_memory_is_told_what_would_fit(spec, folder, monkeypatch):
    large = replace(spec, width=1280, height=720)
    need = [memory(large, read_config(folder), ranks) for ranks in (1, 2)]
    for room_for, wanted in ((need[1].total, "decoding in tiles: --weights int8, with"), (1, ": a budget for K/V")):
        monkeypatch.setattr(room, "total_memory", lambda device, room_for=room_for: room_for / room.USABLE)
        told = what_fits(large, "cuda", 1)
        assert "Would fit" + wanted.replace("decoding", ", decoding", 1) in told and str(need[0]) in told
        assert ("; or --gang 2, with" in told) == (room_for > 1)


def test_what_would_fit_is_counted_as_the_run_holds_it(spec, monkeypatch):
    monkeypatch.setattr(room, "config_of", lambda spec: SkyReelsConfig(5120, 13824, 40, 40))
    monkeypatch.setattr(room, "total_memory", lambda device: 80e9)
    whole, eight = (what_fits(spec, "cuda", 1, precision=Precision(weights=kind)) for kind in ("auto", "int8"))
    assert "weights 27.0" in whole and "--gang 2 and --shard-weights, with" in whole
    assert "weights 14.0" in eight and "tiles: --gang 2, with" in eight and "-weights" not in eight
    sharded = what_fits(spec, "cuda", 2, sharded=True)
    assert "gathered blocks" in sharded and "--shard-weights" not in sharded and "--weights" not in sharded
