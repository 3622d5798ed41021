"""Previews of a checkpoint in training: python -m training.sample --run runs/tiny --sheet preview.png

By each family's own plain loop, independent of `flowcache.sampling`, so that training needs nothing above
`flowcache.models`.
"""

import argparse
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from flowcache.families.codecs import load_codec
from training.families import FAMILIES, Family
from training.shapes import caption, sample_scene, vocabulary
from training.text import build_tokenizer
from training.train import Options


def load_average(run: str | Path) -> tuple[nn.Module, PreTrainedTokenizerFast, Family, dict]:
    """The averaged weights of a run's checkpoint, its tokenizer, its family, and the checkpoint itself."""
    state = torch.load(Path(run) / "checkpoint.pt", weights_only=True)
    family = FAMILIES[Options(**state["options"]).family]
    tokenizer = build_tokenizer(vocabulary())
    model = family.build(len(tokenizer))
    model.load_state_dict(state["ema"])
    return model.eval().requires_grad_(False), tokenizer, family, state


def contact_sheet(videos: list[Tensor], columns: int = 15) -> Image.Image:
    """One row of evenly spaced frames for each video [3, T, H, W] in -1..1."""
    rows = []
    for video in videos:
        chosen = video[:, torch.linspace(0, video.shape[1] - 1, columns).round().long()]
        rows.append(((chosen.clamp(-1, 1) + 1) * 127.5).round().byte().permute(2, 1, 3, 0).flatten(1, 2))
    return Image.fromarray(torch.cat(rows).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--sheet", required=True)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--guidance", type=float, default=3.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer, family, state = load_average(arguments.run)
    codec = load_codec(Path(arguments.run) / "vae")
    rng = Random(arguments.seed)
    prompts = [caption(sample_scene(rng, world=family.world)) for _ in range(arguments.n)]
    latents = family.preview(model, tokenizer, prompts, guidance=arguments.guidance, seed=arguments.seed)
    contact_sheet([codec.stream()(x) for x in latents]).save(arguments.sheet)
    print(f"step {state['step']}, loss {state['loss']:.4f}", *prompts, sep="\n")


if __name__ == "__main__":
    main()
