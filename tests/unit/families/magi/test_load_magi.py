"""A whole tiny MAGI-1 checkpoint in the published layout: loaded, looked through, damaged."""

import numpy as np
import pytest
import torch

from flowcache.errors import InputError
from flowcache.families.check import check, sound
from flowcache.families.magi.captions import Captions
from flowcache.families.magi.vae_codec import MagiCodec
from flowcache.families.registry import find, folder_digest, load_model
from tests.published_magi import TEXT_DIM, write_magi


@pytest.fixture
def config(tmp_path):
    torch.set_num_threads(1)
    return write_magi(tmp_path)


def test_every_part_loads(config):
    model = load_model(str(config), texts=["a red circle"])
    assert (model.spec.family, model.spec.causal, model.spec.video_frames(6)) == ("magi", False, 24)
    assert isinstance(model.codec, MagiCodec) and isinstance(model.text, Captions)
    latents = torch.zeros(1, model.spec.channels, model.spec.chunk, 4, 4)
    assert model.codec.stream()(latents[0]).shape == (3, 24, 32, 32)
    caption = model.text.caption("A Red <i>circle</i>", remaining=9)
    assert caption.shape == (1, 6, TEXT_DIM)  # how much remains, high quality, three words and the end
    assert torch.equal(caption[:, 2:], model.text.encode("a red circle"))
    special = np.load(config.parents[1] / "assets" / "special_tokens.npz")["other_tokens"]
    assert torch.equal(caption[0, :2], torch.from_numpy(special[[14, 1]]).half().float())
    grid = model.transformer.grid(latents)
    conditioning = model.transformer.condition(torch.zeros(1, 1), grid, model.spec.fps, distill=4.0)
    tokens = model.transformer.transform(
        model.transformer.embed(latents), conditioning, [model.transformer.text(caption)],
        [model.transformer.rope(grid)], lambda layer, q, k, v: q,
    )  # fmt: skip
    assert model.transformer.project(tokens, conditioning, grid).shape == latents.shape


def test_half_precision_keeps_text_and_pixels_in_full(config):
    model = load_model(str(config), dtype="bf16")
    assert model.transformer.dtype == torch.bfloat16
    assert torch.equal(model.text.encode("a red circle"), load_model(str(config)).text.encode("a red circle"))
    assert model.codec.vae.decoder.proj_in.weight.dtype == torch.float32


def test_sound_checkpoints_have_no_problem(config):
    report = check(config)
    assert report.problems == [] and set(report.parts) == {"transformer", "vae", "text_encoder"}


def test_the_special_tokens_may_lie_beside_the_config_and_must_lie_somewhere(config):
    assets = config.parents[1] / "assets" / "special_tokens.npz"
    before = find(str(config)).digest
    assets.rename(config.parent / "special_tokens.npz")
    folder_digest.cache_clear()
    assert load_model(str(config)).text.special is not None and find(str(config)).digest == before
    (config.parent / "special_tokens.npz").unlink()
    with pytest.raises(InputError, match="special_tokens.npz: is missing; it lies in example/assets of the MAGI-1"):
        find(str(config))


def test_other_special_tokens_are_another_model(config):
    before = find(str(config)).digest
    np.savez(config.parents[1] / "assets" / "special_tokens.npz", other_tokens=np.zeros((100, TEXT_DIM)))
    folder_digest.cache_clear()
    assert find(str(config)).digest != before


DAMAGE = {
    "special tokens": ("example/assets/special_tokens.npz", b"?", "special_tokens.npz: is text that begins with"),
    "vae": ("downloads/vae/diffusion_pytorch_model.safetensors", b"?", "safetensors: is text that begins with"),
    "vae config": ("downloads/vae/config.json", b'{"_class_name": "ViTVAE"}', "ddconfig: is missing"),
    "t5": (
        "downloads/t5_pretrained/t5-v1_1-xxl/pytorch_model-00001-of-00002.bin", b"?",
        "00001-of-00002.bin: is text that begins with",
    ),
    "tokenizer": ("downloads/t5_pretrained/t5-v1_1-xxl/tokenizer.json", b"?", "holds no tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("part", DAMAGE)
def test_damage_is_named(config, part):
    name, data, message = DAMAGE[part]
    (config.parents[2] / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        sound(str(config))
