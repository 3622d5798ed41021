"""Trains a tiny model: python -m training.train --family skyreels --out runs/tiny --minutes 95

It resumes what it finds there.
"""

import argparse
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flowcache.families.codecs import PatchCodec, load_codec
from training.codec import fit_codec, save_codec
from training.families import FAMILIES, Family
from training.shapes import vocabulary
from training.text import build_tokenizer


@dataclass(frozen=True)
class Options:
    out: str
    family: str = "skyreels"
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


def build_optimizers(model: nn.Module, family: Family) -> list[torch.optim.Optimizer]:
    """Muon on the matrices of the transformer's blocks, AdamW on all the rest, slowly on what conditions them.

    At the full rate the text encoder saturates within a thousand steps (T5's attention has no 1 / sqrt(d)): words
    lose their neighbours, and a caption's two colours are mixed up for good. The time embedding saturates too: all
    low noise levels become one.
    """
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "conditioning": [], "rest": []}
    for name, parameter in model.named_parameters():
        block = name.startswith(family.matrices) and parameter.ndim == 2
        slow = name.startswith(family.slow)
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


def channel_weights(codec: PatchCodec) -> Tensor:
    """Of the loss, [C], 1 on average: more on channels that pixels show more of, short of their full share."""
    return codec.scale.sqrt() / codec.scale.sqrt().mean()


class Run:
    """Everything that a resumed training needs; data and noise follow from the step alone."""

    def __init__(self, model: nn.Module, options: Options):
        self.model, self.options = model, options
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.optimizers = build_optimizers(model, FAMILIES[options.family])
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


def train(options: Options) -> None:
    """Runs until the time budget is spent, from the last checkpoint if there is one."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # on a CPU too: twice as fast for short sequences
    out, family = Path(options.out), FAMILIES[options.family]
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(vocabulary())
    model = family.build(len(tokenizer))
    if options.start:
        family.take_up(model, Path(options.start))
    given = Path(options.start) / "vae" if options.start else options.codec  # its latents are what the weights know
    codec = load_codec(given) if given else fit_codec()
    codec.causal = family.causal
    save_codec(codec, out / "vae")
    weights = channel_weights(codec)
    run = Run(model, options)
    run.resume()
    last = saved = time.monotonic()
    while run.spent < options.minutes * 60:
        rng = Random(f"{options.seed}/{run.step}")
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + run.step)
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            loss = family.loss_of_step(model, tokenizer, codec, weights, options.batch, rng, generator)
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
    parser.add_argument("--family", choices=FAMILIES, default=Options.family)
    for name in ("minutes", "batch", "lr", "warmup", "seed", "threads", "start", "codec"):
        default = getattr(Options, name)
        parser.add_argument(f"--{name}", type=type(default), default=default)
    train(Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
