"""Trains `tiny-skyreels`: python -m training.train --out runs/tiny --minutes 95 (resumes what it finds there)."""

import argparse
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from flowcache.models.codec import PatchCodec, load_codec
from flowcache.models.skyreels.config import SkyReelsConfig
from flowcache.models.skyreels.transformer import SkyReelsTransformer
from flowcache.models.skyreels.weights import to_official
from training.codec import CHANNELS, fit_codec, save_codec
from training.noise import sample_sigmas
from training.shapes import caption, render, sample_scene, vocabulary
from training.text import build_encoder, build_tokenizer, encode_batch

CHUNK = 3  # latent frames
TEXT_LEN = 16
FPS = 12
CONFIG = SkyReelsConfig(
    dim=192, ffn_dim=512, heads=4, layers=6, in_channels=CHANNELS, out_channels=CHANNELS, text_dim=96,
    text_len=TEXT_LEN, freq_dim=128, positions=(4, 4),
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    out: str
    minutes: float = 105
    batch: int = 16
    lr: float = 3e-3
    warmup: int = 100
    ema: float = 0.998
    seed: int = 0
    threads: int = 1
    save_minutes: float = 4
    start: str = ""  # an exported folder, from whose weights and codec this run goes on
    codec: str = ""  # a folder of a codec; without it one is fitted


class Tiny(nn.Module):
    """Transformer and text encoder, trained jointly."""

    def __init__(self, words: int):
        super().__init__()
        self.transformer = SkyReelsTransformer(CONFIG)
        self.text_encoder = build_encoder(words, CONFIG.text_dim)
        initialise(self.transformer)


def initialise(model: SkyReelsTransformer) -> None:
    """As the official code (xavier, zero head), and positions strong enough to be seen from the start."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        if name.startswith(("text_embedding.", "time_embedding.")) and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02 if name.startswith("time") else module.in_features**-0.5)
    nn.init.xavier_uniform_(model.patch_embedding.weight.flatten(1))
    nn.init.zeros_(model.patch_embedding.bias)
    nn.init.normal_(model.position_embedding, std=0.3)
    nn.init.zeros_(model.head.head.weight)


def build_optimizers(model: Tiny, options: Options) -> list[torch.optim.Optimizer]:
    """Muon on the matrices of the transformer's blocks, AdamW on all the rest, slowly on what conditions them.

    At the full rate the text encoder saturates within a thousand steps (UMT5's attention has no 1 / sqrt(d)): words
    lose their neighbours, and a caption's two colours are mixed up for good. The time embedding saturates too: all
    low noise levels become one.
    """
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "conditioning": [], "rest": []}
    for name, parameter in model.named_parameters():
        block = name.startswith("transformer.blocks.") and parameter.ndim == 2
        slow = name.startswith(("text_encoder.", "transformer.time_"))
        groups["conditioning" if slow else "matrices" if block else "rest"].append(parameter)
    rest = [{"params": groups["rest"], "share": 0.5}, {"params": groups["conditioning"], "share": 0.2}]
    optimizers = [
        torch.optim.Muon(groups["matrices"], weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group.setdefault("share", 1.0)  # of the learning rate
    return optimizers


def rate(step: int, spent: float, options: Options) -> float:
    """Learning rate factor: warm-up by steps, then a cosine down to 2% over the time budget."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))
    return min(1.0, (step + 1) / options.warmup) * (0.02 + 0.98 * cosine)


def make_batch(step: int, options: Options, codec) -> tuple[Tensor, list[str], Tensor]:
    """Latents [B, C, F, h, w], captions, and which rows are continuations [B]; a function of seed and step alone."""
    rng = Random(f"{options.seed}/{step}")
    chunks = rng.choice((5, 5, 4, 3, 2, 1))  # the first one is the hardest, and short windows cost less
    frames = 1 + (chunks * CHUNK - 1) * codec.time_stride
    prefix = [chunks > 1 and rng.random() < 0.35 for _ in range(options.batch)]
    scenes = [sample_scene(rng, continued) for continued in prefix]
    captions = ["" if rng.random() < 0.1 else caption(scene, rng) for scene in scenes]
    return torch.stack([codec.encode(render(scene, frames)) for scene in scenes]), captions, torch.tensor(prefix)


def channel_weights(codec: PatchCodec) -> Tensor:
    """Of the loss, [C], 1 on average: more on channels that pixels show more of, short of their full share."""
    return codec.scale.sqrt() / codec.scale.sqrt().mean()


def loss_of(
    model: Tiny,
    tokenizer,
    latents: Tensor,
    captions: list[str],
    prefix: Tensor,
    weights: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Squared error of the velocity (noise - clean), weighted by channel, over the frames that are to be learned."""
    sigma, learned = sample_sigmas(prefix, latents.shape[2], CHUNK, generator)
    noise = torch.randn(latents.shape, generator=generator)
    s = sigma[:, None, :, None, None]
    noisy = (1 - s) * latents + s * noise
    text = encode_batch(model.text_encoder, tokenizer, captions, TEXT_LEN)
    velocity = model.transformer(noisy, sigma * 1000, text, FPS, CHUNK).float()
    error = ((velocity - (noise - latents)).square() * weights[:, None, None, None]).mean((1, 3, 4))
    return error[learned].mean()


class Run:
    """Everything that a resumed training needs; data and noise follow from the step alone."""

    def __init__(self, model: Tiny, options: Options):
        self.model, self.options = model, options
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.optimizers = build_optimizers(model, options)
        self.step, self.spent, self.loss = 0, 0.0, math.nan  # loss: a running mean
        self.path = Path(options.out) / "checkpoint.pt"

    def save(self) -> None:
        """Replaces the file in one step, so that a kill leaves the old or the new one."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "spent": self.spent,
            "loss": self.loss,
            "options": asdict(self.options),
        }
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.path)

    def resume(self) -> None:
        """From the last checkpoint, if there is one."""
        if not self.path.exists():
            return
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average, self.step, self.spent, self.loss = (state[key] for key in ("ema", "step", "spent", "loss"))
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def advance(self, loss: Tensor) -> None:
        """One step of the optimizers and of the averages."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = rate(self.step, self.spent / (self.options.minutes * 60), self.options)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.options.lr * factor * group["share"]
            optimizer.step()
            optimizer.zero_grad()
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)
        self.loss = loss.item() if math.isnan(self.loss) else self.loss + 0.02 * (loss.item() - self.loss)
        self.step += 1


def take_up(model: Tiny, folder: Path) -> PatchCodec:
    """The weights of an exported checkpoint, and its codec: its latents are what the weights know."""
    stored = to_official(load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors"))
    model.transformer.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32, local_files_only=True)
    model.text_encoder.load_state_dict(encoder.state_dict())
    return load_codec(folder / "vae")


def train(options: Options) -> None:
    """Runs until the time budget is spent, from the last checkpoint if there is one."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(vocabulary())
    model = Tiny(len(tokenizer))
    fitted = load_codec(Path(options.codec)) if options.codec else None
    codec = take_up(model, Path(options.start)) if options.start else fitted or fit_codec()
    save_codec(codec, out / "vae")
    weights = channel_weights(codec)
    run = Run(model, options)
    run.resume()
    last = saved = time.monotonic()
    while run.spent < options.minutes * 60:
        latents, captions, prefix = make_batch(run.step, options, codec)
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + run.step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(run.model, tokenizer, latents, captions, prefix, weights, generator)
        run.advance(loss)
        now = time.monotonic()
        run.spent, last = run.spent + now - last, now
        if run.step % 20 == 0:
            print(f"step {run.step} minutes {run.spent / 60:.1f} loss {run.loss:.4f}", flush=True)
        if now - saved > options.save_minutes * 60:
            run.save()
            saved = now
    run.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder of checkpoints; resumed where it has one")
    for name in ("minutes", "batch", "lr", "warmup", "seed", "threads", "start", "codec"):
        default = getattr(Options, name)
        parser.add_argument(f"--{name}", type=type(default), default=default)
    train(Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
