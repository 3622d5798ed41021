"""Previews of a checkpoint in training: python -m training.sample --run runs/tiny --sheet preview.png

A plain whole-window loop (Euler steps, the staggered schedule, block-causal attention), independent of
`flowcache.sampling`, so that training needs nothing above `flowcache.models`.
"""

import argparse
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import Tensor

from flowcache.models.codec import load_codec
from training.noise import PREFIX_SIGMA, shifted
from training.shapes import SIZE, caption, sample_scene, vocabulary
from training.text import build_tokenizer, encode_batch
from training.train import CHANNELS, CHUNK, FPS, TEXT_LEN, Tiny


def load_average(run: str | Path) -> tuple[Tiny, object, dict]:
    """The averaged weights of a run's checkpoint, its tokenizer, and the checkpoint itself."""
    state = torch.load(Path(run) / "checkpoint.pt", weights_only=True)
    tokenizer = build_tokenizer(vocabulary())
    model = Tiny(len(tokenizer))
    model.load_state_dict(state["ema"])
    return model.eval().requires_grad_(False), tokenizer, state


@torch.no_grad()
def denoise(
    model: Tiny,
    tokenizer,
    prompts: list[str],
    chunks: int = 5,
    steps: int = 30,
    ar_step: int = 6,
    guidance: float = 3.0,
    seed: int = 0,
    prefix: Tensor | None = None,
) -> Tensor:
    """Clean latents [B, C, chunks * CHUNK, h, w]; `prefix`: latents of the first chunk, which is kept."""
    frames, side = chunks * CHUNK, SIZE // 8
    x = torch.randn(len(prompts), CHANNELS, frames, side, side, generator=torch.Generator().manual_seed(seed))
    sigmas = torch.cat([shifted(torch.linspace(0.999, 0, steps + 1)[:-1]), torch.zeros(1)])
    text = encode_batch(model.text_encoder, tokenizer, prompts + [""] * len(prompts), TEXT_LEN)
    lag = torch.arange(chunks) * ar_step
    if prefix is not None:
        noise = x[:, :, :CHUNK]
        x[:, :, :CHUNK] = (1 - PREFIX_SIGMA) * prefix + PREFIX_SIGMA * noise
        lag = (lag - ar_step).clamp(min=0)
    for tick in range(steps + int(lag[-1])):
        step = (tick - lag).clamp(0, steps)
        now, after = sigmas[step], sigmas[(tick + 1 - lag).clamp(0, steps)]
        if prefix is not None:
            now[0] = after[0] = PREFIX_SIGMA
        now, after = (s.repeat_interleave(CHUNK) for s in (now, after))
        timesteps = (now * 1000).expand(2 * len(prompts), -1)
        v, empty = model.transformer(torch.cat([x, x]), timesteps, text, FPS, CHUNK).chunk(2)
        v = empty + guidance * (v - empty)
        x = x + (after - now)[:, None, None] * v
    return x


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
    model, tokenizer, state = load_average(arguments.run)
    codec = load_codec(Path(arguments.run) / "vae")
    rng = Random(arguments.seed)
    prompts = [caption(sample_scene(rng)) for _ in range(arguments.n)]
    latents = denoise(model, tokenizer, prompts, guidance=arguments.guidance, seed=arguments.seed)
    contact_sheet([codec.stream()(x) for x in latents]).save(arguments.sheet)
    print(f"step {state['step']}, loss {state['loss']:.4f}", *prompts, sep="\n")


if __name__ == "__main__":
    main()
