"""Settings, weights, noise, texts and pictures drawn at random, in the form of a golden run."""

import random
from typing import Any

import torch
from torch import Tensor

from tests.parity.skyreels_runs import FLOWCACHE, OFFICIAL
from tests.parity.skyreels_videos import transformer_of

TEXT_DIM = 16


def draw(seed: int, kind: str) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Name, what a golden's JSON says of a run, and its tensors. kind: "skyreels" or "flowcache"."""
    r, generator = random.Random(f"{kind}{seed}"), torch.Generator().manual_seed(seed)
    official = kind == "skyreels"
    start = r.choice([None, None, None, "image", "video"]) if official else None
    sizes = model_sizes(r)
    settings = sampling(r) | lengths(r, official, start) | {"num_heads": sizes["num_heads"]}
    case = {
        "name": f"{kind}{seed:05}", "kind": OFFICIAL if official else FLOWCACHE, "settings": settings,
        "start": start, "seed": seed, "sizes": sizes, "args": None, "tea": None,
        "causal_attention": official and r.random() < 0.4,
    }  # fmt: skip
    if official:
        case["tea"] = teacache(r, whole_window(settings)) if r.random() < 0.5 else None
    else:
        settings["guidance"] = max(settings["guidance"], 1.5)  # a single branch would be half of two
        case |= flowcache(r, settings)
    return case["name"], case, tensors(case, generator)


def model_sizes(r: random.Random) -> dict[str, Any]:
    heads = r.choice([1, 2, 3, 4])
    return {
        "model_type": "t2v", "dim": heads * r.choice([12, 16, 24, 32]), "ffn_dim": r.choice([48, 64, 96]),
        "freq_dim": r.choice([64, 256]), "text_dim": TEXT_DIM, "text_len": r.choice([3, 8, 16]), "in_dim": 16,
        "out_dim": 16, "num_heads": heads, "num_layers": r.choice([1, 2, 2, 3]),
    }  # fmt: skip


def sampling(r: random.Random) -> dict[str, Any]:
    steps = r.randint(2, 10) if r.random() < 0.97 else r.randint(11, 50)
    ar_step = r.choice([0, 0, r.randint(1, 2), r.randint(1, min(steps, 10))])
    return {
        "N": steps if r.random() < 0.97 else 1, "ar_step": ar_step if r.random() < 0.97 else steps + r.randint(1, 3),
        "guidance": r.choice([1.0, 1.0, 1.5, 5.0, 6.0, round(r.uniform(0.5, 9), 2)]),
        "shift": r.choice([1.0, 3.0, 5.0, 8.0, round(r.uniform(0.5, 12), 2)]),
        "height": 16 * r.randint(1, 3), "width": 16 * r.randint(1, 3), "fps": r.choice([16, 24, 30]),
        "addnoise_condition": r.choice([0, 5, 20, 20, r.randint(1, 200)]), "inject_sample_info": r.random() < 0.7,
    }  # fmt: skip


def lengths(r: random.Random, official: bool, start: str | None) -> dict[str, int]:
    """Of a window, what it takes over and the whole video, in video frames; all are whole chunks."""
    chunk = 1 if start == "image" and r.random() < 0.9 else r.choice([1, 2, 3, 5])
    window = r.randint(2, 5 if chunk < 3 or r.random() < 0.1 else 3)
    overlap = r.randint(1, window - 1) if official else 1
    more = r.choice([0, 0, 1, 1, 2, 3]) if official else r.choice([1, 1, 1, 2])
    chunks = window + more * (window - overlap)
    if official and more and r.random() < 0.4:
        chunks -= r.randint(0, window - overlap - 1)  # the last window is a partial one
    elif official and r.random() < 0.2:
        chunks = r.randint(1 + (start == "video") * overlap, window)  # there is but a part of one
    latent = {"num_frames": chunks, "base_num_frames": window, "overlap_history": overlap}
    return {name: 4 * count * chunk - 3 for name, count in latent.items()} | {"causal_block_size": chunk}


def whole_window(settings: dict[str, Any]) -> int:
    """Its rows, to which the official TeaCache counts (generate_video_df.py), but forwards."""
    chunks = ((settings["base_num_frames"] - 1) // 4 + 1) // settings["causal_block_size"]
    return settings["N"] + (chunks - 1) * settings["ar_step"]


def teacache(r: random.Random, rows: int) -> dict[str, Any]:
    """Polynomials of its own, mostly: with the published ones, small models rarely reuse a step."""
    told: dict[str, Any] = {
        "teacache_thresh": r.choice([0.02, 0.1, 0.2, 0.3, 0.8, 3.0]), "use_ret_steps": r.random() < 0.5,
        "ckpt_dir": r.choice(["1.3B", "14B"]),
    }  # fmt: skip
    if r.random() < 0.8:
        told["coefficients"] = r.choice([[1.0, 0.0], [0.5, 1.0, 0.0], [0.3, -0.01]])
    return told | {"num_steps": rows}


def flowcache(r: random.Random, settings: dict[str, Any]) -> dict[str, Any]:
    """Of what it knows; where it does not see that a window has a prefix, without a budget."""
    tea = teacache(r, whole_window(settings)) if r.random() < 0.85 else None
    kept = r.random()
    if tea is None or settings["ar_step"] == 0 or kept < 0.45:
        args = None
    elif kept < 0.75:
        args = {"use_kvrange": True, "kvrange": r.randint(1, 3)}
    else:
        args = {"use_compress": True, "budget_block": r.randint(0, 3)}
    return {"tea": tea, "args": args}


def tensors(case: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(size, generator=generator)

    settings, sizes, start = case["settings"], case["sizes"], case["start"]
    model = transformer_of(sizes, sizes["num_heads"], settings["inject_sample_info"], None)
    made = {f"w.{name}": weight(name, x, generator) for name, x in model.state_dict().items()}
    made |= {f"codec.{name}": normal(4, 3, 16, scale=0.2) for name in "AB"}
    made |= {"codec.C": normal(16, 12, scale=0.5), "codec.D": normal(16, 16, scale=0.1), "codec.E": normal(16, 3)}
    made |= {f"in.{name}": normal(1, sizes["text_len"], TEXT_DIM) for name in ("prompt", "negative")}
    if start:
        frames = settings["overlap_history"] if start == "video" else 1
        shape = frames, settings["height"], settings["width"], 3
        made[f"in.{start}"] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return made


def weight(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Such that activations neither vanish nor grow."""
    drawn = torch.randn(like.shape, generator=generator)
    if like.ndim > 1:
        return 1.2 * drawn / like[0].numel() ** 0.5
    return 0.1 * drawn + ("norm" in name and name.endswith("weight"))
