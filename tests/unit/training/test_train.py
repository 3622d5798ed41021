import math
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.families.codecs import PatchCodec, load_codec
from flowcache.families.registry import load_model
from training.codec import CHANNELS, save_codec
from training.families import FAMILIES
from training.sample import load_average
from training.shapes import vocabulary
from training.skyreels.loss import loss_of, make_batch
from training.skyreels.model import CHUNK, Tiny
from training.skyreels.noise import PREFIX_SIGMA, sample_sigmas
from training.text import build_tokenizer, encode_batch
from training.train import Options, Run, rate, train


@given(st.integers(0, 10**6), st.integers(2, 5))
@settings(deadline=None)
def test_sigmas(seed, chunks):
    prefix = torch.arange(64) % 2 == 0
    sigma, learned = sample_sigmas(prefix, chunks * CHUNK, CHUNK, torch.Generator().manual_seed(seed))
    assert sigma.shape == learned.shape == (64, chunks * CHUNK)
    assert sigma.min() >= 0 and sigma.max() <= 0.999
    assert (sigma[learned] > 0).all()
    assert not learned[prefix, :CHUNK].any() and (sigma[prefix, :CHUNK] <= PREFIX_SIGMA).all()
    assert learned[prefix, CHUNK:].float().mean() > 0.2
    later = sigma[:, 1:].unflatten(1, (-1, 1))[:, CHUNK - 1 :].flatten(1).unflatten(1, (chunks - 1, CHUNK))
    assert (later == later[:, :, :1]).all()  # one level for each chunk, but for an image's frame
    image = (sigma[:, 0] == 0) & (sigma[:, 1] > 0)
    assert not learned[image, 0].any() and learned[image, 1].all() and not (image & prefix).any()


def test_rate_warms_up_and_ends_low():
    options = Options(out="")
    assert rate(0, 0, options) < 0.02
    assert rate(options.warmup, 0, options) == pytest.approx(1)
    assert rate(10**5, 1, options) == pytest.approx(0.02)


def test_batches_follow_from_the_seed():
    codec = PatchCodec(CHANNELS)
    one, again, other = (make_batch(3, Random(seed), codec) for seed in (7, 7, 8))
    assert torch.equal(one[0], again[0]) and one[1] == again[1] and torch.equal(one[2], again[2])
    assert one[1] != other[1]
    assert one[0].shape[0] == 3 and one[0].shape[2] % CHUNK == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A few real steps on one small batch, checkpointed."""
    torch.manual_seed(0)
    options = Options(out=str(tmp_path_factory.mktemp("run")), batch=2, warmup=1, lr=2e-3)
    tokenizer = build_tokenizer(vocabulary())
    run = Run(Tiny(len(tokenizer)), options)
    run.losses = []
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, CHANNELS, 2 * CHUNK, 8, 8, generator=generator)
    for _ in range(12):
        noise = torch.Generator().manual_seed(1)
        captions, prefix, weights = ["a red circle", ""], torch.tensor([True, False]), torch.ones(CHANNELS)
        loss = loss_of(run.model, tokenizer, latents, captions, prefix, weights, noise)
        run.losses.append(loss.item())
        run.advance(loss)
    run.save()
    return run


def test_loss_falls(run):
    assert run.losses[0] == pytest.approx(2, abs=0.2)  # the head starts at zero: mean of (noise - clean) squared
    assert run.losses[-1] < 0.9 * run.losses[0]


def test_every_parameter_learns(run):
    torch.manual_seed(0)
    fresh = Tiny(len(build_tokenizer(vocabulary())))
    for (name, trained), initial in zip(run.model.named_parameters(), fresh.parameters(), strict=True):
        assert not torch.equal(trained, initial), name


def test_resumes_all_of_it(run):
    torch.manual_seed(1)
    other = Run(Tiny(len(build_tokenizer(vocabulary()))), run.options)
    assert math.isnan(other.loss)
    other.resume()
    assert (other.step, other.loss) == (12, run.loss)
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])
        assert torch.equal(run.average[name], other.average[name])
    for mine, theirs in zip(run.optimizers, other.optimizers, strict=True):
        for key, state in mine.state_dict()["state"].items():
            for name, value in state.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs.state_dict()["state"][key][name]))


@pytest.mark.parametrize("family", FAMILIES)
def test_trains_resumes_and_is_read_again(family, tmp_path):
    """A step of each family through the program itself."""
    save_codec(PatchCodec(CHANNELS), tmp_path / "codec")
    options = Options(str(tmp_path / "run"), family, minutes=1e-6, batch=1, codec=str(tmp_path / "codec"))
    train(options)
    train(options)
    model, tokenizer, found, state = load_average(tmp_path / "run")
    assert found.name == family and state["step"] == 1
    assert load_codec(tmp_path / "run" / "vae").causal == found.causal
    prompts = ["a red circle growing on blue", "a blue square moving left on white"]
    latents = found.preview(model, tokenizer, prompts, chunks=2, steps=8)
    assert latents.shape[:2] == (2, CHANNELS) and latents.isfinite().all()


@pytest.mark.parametrize(("family", "name"), [("skyreels", "tiny-skyreels"), ("magi", "tiny-magi")])
def test_a_run_goes_on_from_an_exported_checkpoint(family, name):
    loaded, found = load_model(name), FAMILIES[family]
    taken = found.build(len(build_tokenizer(vocabulary())))
    found.take_up(taken, Path(loaded.spec.path))
    wanted = loaded.transformer.state_dict()
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in taken.transformer.state_dict().items())
    words = loaded.text.encode("a red circle growing on blue")
    tokenizer = build_tokenizer(vocabulary())
    encoded, there = encode_batch(taken.text_encoder.eval(), tokenizer, ["a red circle growing on blue"], 16)
    assert torch.allclose(encoded[there], words[0, : there.sum()], atol=1e-5)
