"""Previews of a checkpoint in training: python -m training.sample --run runs/tiny --sheet preview.png

By each family's own plain loop, independent of `flowcache.sampling`, so that training needs nothing above
`flowcache.models`.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from flowcache.bench.shapes import caption, sample_scene, vocabulary
from flowcache.families.codecs import load_codec
from flowcache.models.base import Codec
from training.families import FAMILIES, Family
from training.loop import CHECKPOINT
from training.plan import Plan
from training.text import build_tokenizer


@dataclass(frozen=True)
class Trained:
    """The averaged weights of a run. seen: rows of each length."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    family: Family
    plan: Plan
    step: int
    minutes: float
    seen: dict[str, int]


def load_average(run: str | Path) -> Trained:
    """Of a run's folder, or of one of its files."""
    path = Path(run)
    state = torch.load(path / CHECKPOINT if path.is_dir() else path, weights_only=True)
    plan = Plan.model_validate_json(state["plan"])
    family, tokenizer = FAMILIES[plan.task], build_tokenizer(vocabulary())
    model = family.build(len(tokenizer))
    model.load_state_dict(state["average"])
    model.eval().requires_grad_(False)
    return Trained(model, tokenizer, family, plan, state["step"], state["spent"] / 60, state["seen"])


def codec_of(run: str | Path) -> Path:
    """The folder of the codec whose latents the run learned."""
    path = Path(run)
    return (path if path.is_dir() else path.parent) / "vae"


def decoded(codec: Codec, latents: Tensor) -> list[Tensor]:
    """Each video [3, T, H, W] in -1..1."""
    videos = (codec.stream()(one) for one in latents)
    return [video for video in videos if video is not None]  # of a codec that no other rank shares: all


def contact_sheet(videos: list[Tensor], columns: int = 15) -> Image.Image:
    """One row of evenly spaced frames for each video [3, T, H, W] in -1..1."""
    rows = []
    for video in videos:
        chosen = video[:, torch.linspace(0, video.shape[1] - 1, columns).round().long()]
        rows.append(((chosen.clamp(-1, 1) + 1) * 127.5).round().byte().permute(2, 1, 3, 0).flatten(1, 2))
    return Image.fromarray(torch.cat(rows).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="folder of a run, or one of its step-*.pt")
    parser.add_argument("--sheet", required=True)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--guidance", type=float, default=3.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained, codec = load_average(arguments.run), load_codec(codec_of(arguments.run))
    rng = Random(arguments.seed)
    prompts = [caption(sample_scene(rng, world=trained.plan.world)) for _ in range(arguments.n)]
    guidance, seed = arguments.guidance, arguments.seed
    latents = trained.family.preview(trained.model, trained.tokenizer, prompts, guidance=guidance, seed=seed)
    contact_sheet(decoded(codec, latents)).save(arguments.sheet)
    print(f"step {trained.step}", *prompts, sep="\n")


if __name__ == "__main__":
    main()
