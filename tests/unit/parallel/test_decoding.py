"""What several ranks decode together is what one decodes, bit for bit: real gloo process groups, tiny random codecs."""

import os
import time
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from diffusers import AutoencoderKLWan
from hypothesis import given
from hypothesis import strategies as st
from torch.multiprocessing import ProcessRaisedException

from flowcache.families.codecs import PatchCodec
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.families.magi.vae import ViTVAE
from flowcache.families.magi.vae_codec import MagiCodec
from flowcache.families.magi.vae_config import ViTVAEConfig
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel, alone
from flowcache.models.wan_vae import WanCodec
from flowcache.parallel.apply import shard
from flowcache.parallel.decoding import Sharing, Undelivered, deal, open_sharing
from flowcache.parallel.mesh import Mesh, arrange
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.worker.renderer import SegmentRenderer
from tests.unit.parallel.pool import start_ranks

SIZES = (1, 2, 3, 4)
VIT = ViTVAEConfig(z_chans=4, embed_dim=256, depth=1, num_heads=2, video_size=64)
PATIENCE = 2.0  # seconds, of the groups in which a rank fails
SHOT = Shot("a red circle", 0)


def random(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.1)
    return module.requires_grad_(False)


def codecs() -> dict:
    """By name: a codec, and latents of three chunks that it gets. Wan: 6 tiles of four sizes; 2; whole frames.

    MAGI: 12 tiles of a chunk, of which some have 1 latent frame and not 3; 1 tile; tiles of 2 latent frames or 1.
    """
    wan, vit = random(AutoencoderKLWan(base_dim=4)), MagiCodec(random(ViTVAE(VIT)))
    patch = random(PatchCodec(8, hidden=4))
    return {
        "wan": (WanCodec(wan, tile=64), torch.randn(16, 4, 11, 18), (1, 1, 2)),
        "wan, few": (WanCodec(wan, tile=64), torch.randn(16, 3, 4, 10), (1, 1, 1)),
        "wan, whole": (WanCodec(wan), torch.randn(16, 4, 6, 10), (1, 1, 2)),
        "magi": (vit, torch.randn(4, 16, 8, 14), (4, 6, 6)),
        "magi, few": (vit, torch.randn(4, 9, 6, 6), (3, 3, 3)),
        "magi, 16 fps": (vit.at(16), torch.randn(4, 11, 6, 6), (5, 3, 3)),
        "patches": (patch, torch.randn(8, 7, 3, 4), (1, 2, 4)),
    }


def models() -> dict[str, LoadedModel]:
    """Both families, with tiled codecs."""
    sky = SkyReelsConfig(32, 64, 4, 1, in_channels=16, out_channels=16, text_dim=8, freq_dim=16)
    magi = MagiConfig(64, 128, 8, 4, 8, 1, channels=4, text_dim=8, text_len=3, condition_dim=16)
    spec = ModelSpec("sky", "skyreels", "path", "digest", chunk=2, window=6, overlap=4, channels=16)
    wan, vit = WanCodec(random(AutoencoderKLWan(base_dim=4)), tile=64), MagiCodec(random(ViTVAE(VIT)))
    pipeline = Pipeline(passes=1, distilled=True)
    other = replace(spec, family="magi", chunk=6, window=12, overlap=6, channels=4, causal=False, pipeline=pipeline)
    return {
        "skyreels": LoadedModel(spec, random(SkyReelsTransformer(sky)), wan, Texts()),
        "magi": LoadedModel(other, random(MagiTransformer(magi)), vit, Texts()),
    }


class Texts:
    def encode(self, prompt):
        return torch.full((1, 3, 8), len(prompt) / 10)

    def caption(self, prompt, remaining):
        return torch.full((1, 3, 8), remaining / 10)


def streamed(codec, latents, cuts, share) -> list:
    decode = codec.stream(share)
    return [decode(part) for part in latents.split(cuts, dim=1)]


def rendered(model: LoadedModel, frames: int):
    """Frames of all chunks and the tails of a video of two windows; rank 0 alone has any."""
    request = RenderRequest("v", (replace(SHOT, frames=frames),), 80, 64, 12, 1, 1.0, 2, "m", {"name": "off"})
    tail, found = None, []
    for segment in plan(request, model.spec):
        renderer = SegmentRenderer(model, request, segment, tail)
        found += [chunk.frames for chunk in renderer.chunks()]
        if dist.get_rank() == 0:
            found.append(renderer.tail().numpy())
        tails = [found[-1] if found else None]
        dist.broadcast_object_list(tails)
        tail = torch.from_numpy(tails[0])
    return found


def together(model: LoadedModel, group, share) -> LoadedModel:
    """The model over all ranks of a group."""
    transformer = shard(model.transformer, arrange(group, 4))
    return replace(model, transformer=transformer, kv_sharding=transformer.kv_sharding(), share=share)


def broken(group, fail) -> tuple[str, float]:
    """What this rank raises where the second one does `fail` as its first job, and after how long."""
    began = time.monotonic()

    def job():
        return fail() if dist.get_rank(group) == 1 else torch.ones(3)

    try:
        Sharing(Mesh(group))([job] * 4, [(3,)] * 4)
    except (Undelivered, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - began
    return "", time.monotonic() - began


def spoil(*_):
    raise ArithmeticError("the decoder broke")


def failing(model: LoadedModel, group, folder) -> None:
    """Rank 1 of two fails with the second chunk, while both denoise the third; the first leaves with its error."""
    share = Sharing(Mesh(group))
    calls = iter([share, spoil])
    began = time.monotonic()
    try:
        rendered(together(model, group, share if dist.get_rank() == 0 else lambda *given: next(calls)(*given)), 29)
    except ArithmeticError:
        torch.save(time.monotonic() - began, f"{folder}/failed.pt")
        raise


def rank_main(rank, folder):
    torch.set_num_threads(1)
    patient = timedelta(seconds=60)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=max(SIZES), timeout=patient
    )
    groups = {size: dist.new_group(range(size), timeout=patient) for size in SIZES}
    three, two = (dist.new_group(of, timeout=timedelta(seconds=PATIENCE)) for of in ([0, 1, 2], [0, 3]))
    found = {}
    for name, (codec, latents, cuts) in codecs().items():
        if rank == 0:
            found[name, 0] = streamed(codec, latents, cuts, alone)
        for size in SIZES[rank:]:
            found[name, size] = streamed(codec, latents, cuts, Sharing(Mesh(groups[size])))
    both = models()
    for (name, model), frames in zip(both.items(), (29, 72), strict=True):
        for way, share in ("shared", open_sharing(patient)), ("alone", alone if rank == 0 else lambda *_: None):
            found[name, way] = rendered(together(model, dist.group.WORLD, share), frames)
    if rank < 3:
        found["fails"] = broken(three, spoil)
    if rank in (0, 3):
        found["gone"] = broken(two, lambda: os._exit(0))
    torch.save(found, f"{folder}/rank{rank}.pt")
    if rank < 2:
        failing(both["skyreels"], groups[2], folder)


@dataclass(frozen=True)
class Found:
    ranks: list[dict]  # what ranks 0 and 1 of four found
    error: ProcessRaisedException  # how it all ended
    seconds: float  # after which the rank that failed left


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.raises(ProcessRaisedException) as raised:
        start_ranks(rank_main, max(SIZES), str(folder))
    ranks = [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]
    return Found(ranks, raised.value, torch.load(folder / "failed.pt"))


@pytest.mark.parametrize("name", ["wan", "wan, few", "wan, whole", "magi", "magi, few", "magi, 16 fps", "patches"])
def test_pixels_are_those_of_one_rank(found, name):
    """Chunk by chunk, also where tiles don't divide by the ranks, and where there are fewer."""
    for size in SIZES:
        for pixels, expected in zip(found.ranks[0][name, size], found.ranks[0][name, 0], strict=True):
            assert torch.equal(pixels, expected)
        assert size == 1 or found.ranks[1][name, size] == [None] * 3


@pytest.mark.parametrize("family", ["skyreels", "magi"])
def test_a_gang_renders_the_frames_that_one_decodes(found, family):
    """Denoised by four ranks both times; with the tails that the next window continues from."""
    shared, own = (found.ranks[0][family, way] for way in ("shared", "alone"))
    assert len(shared) == len(own) == {"skyreels": 6, "magi": 5}[family] and shared[0].std() > 1
    assert all(np.array_equal(*pair) for pair in zip(shared, own, strict=True))
    assert found.ranks[1][family, "shared"] == []


def test_a_rank_that_fails_says_so_and_is_named_by_who_waits(found):
    (waited, seconds), (failed, _) = (of["fails"] for of in found.ranks)
    assert failed == "ArithmeticError: the decoder broke"
    assert waited.startswith("Undelivered: waited in vain for rank 1 while a chunk was decoded: ")
    assert PATIENCE <= seconds < PATIENCE + 20


def test_a_rank_that_is_gone_is_noticed_at_once(found):
    waited, _ = found.ranks[0]["gone"]
    assert waited.startswith("Undelivered: waited in vain for rank 1") and "Connection closed" in waited


def test_a_rank_that_fails_beside_denoising_leaves_at_once(found):
    """And not when its collectives time out: whoever watches the gang hears its error, and whose it is."""
    assert found.error.error_index == 1 and "ArithmeticError: the decoder broke" in str(found.error)
    assert found.seconds < 40


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 8), st.integers(2, 9))
def test_jobs_are_dealt_evenly_and_stay_where_they_are(costs, ranks, factor):
    owners = deal(costs, ranks)
    load = [sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == rank) for rank in range(ranks)]
    assert max(load) - min(load) <= max(costs) and load[0] > 0
    assert deal([factor * cost for cost in costs], ranks) == owners


def test_what_is_whole_stays_with_the_rank_that_shows_it():
    assert deal([7], 4) == [0] and deal([1, 5, 1, 1], 2) == [1, 0, 1, 1]
