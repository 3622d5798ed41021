"""Settings, weights, noise and texts drawn at random, in the form of a golden run."""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file

from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.config_file import COUNTS, NUMBERS, SWITCHES
from flowcache.families.magi.transformer import MagiTransformer
from tests.parity.magi_runs import PADS

TEXT_DIM, TEXT_LEN = 8, 800  # the official code cuts at 800, whatever the config says
WEIGHTINGS = ("no_weight", "hard_code", "exponential", "polynomial", "upper_convex_polynomial", "gaussian")


def draw(seed: int, kind: str) -> tuple[str, dict, dict[str, torch.Tensor]]:
    """Name, what a golden's JSON says of a run, and its tensors. kind: "magi" or "flowcache"."""
    r, generator = random.Random(f"{kind}{seed}"), torch.Generator().manual_seed(seed)
    distilled = kind == "flowcache" or r.random() < 0.5
    sizes, runtime = model_config(r), runtime_config(r, distilled)
    width, chunks = runtime["chunk_width"], r.randint(1, 7)
    reuse, compression = flowcache(r, runtime["window_size"]) if kind == "flowcache" else (None, None)
    if compression:
        chunks = reuse["total_cache_chunk_nums"] + r.randint(0, 5)
        if r.random() < 0.8:
            runtime["noise2clean_kvrange"] = []
    runtime["num_frames"] = 4 * width * chunks
    prefix = r.choice([1, r.randint(1, 4 * width)]) if not compression and r.random() < 0.45 else 0
    whole = -(-(chunks * width + prefix) // width)
    shape = runtime["video_size_h"] // 8, runtime["video_size_w"] // 8
    name = f"{kind}{seed:05}"
    case = {
        "name": name,
        "config": {
            "model_config": sizes, "runtime_config": runtime, "engine_config": engine_config(r, distilled),
        },
        "env": environment(r, distilled),
        "prefix": "prefix" if prefix else None,
        "empty_prompt": r.random() < 0.1,
        "static": {"chunk_num": whole},
    }  # fmt: skip
    if reuse:
        case |= {"flowcache": reuse, "compression": compression}
    return name, case, tensors(case, (whole * width, *shape), prefix, r.randint(1, 20), generator)


def model_config(r: random.Random) -> dict:
    groups = r.choice([1, 2, 4, 8])
    heads = r.choice([heads for heads in (8, 16) if heads % groups == 0])
    head_dim, half = 8 if heads == 16 else r.choice([8, 16]), r.random() < 0.25
    return {
        "model_name": "videodit_ardf", "num_layers": r.choice([2, 3]), "hidden_size": heads * head_dim,
        "ffn_hidden_size": r.choice([48, 64]), "num_attention_heads": heads, "num_query_groups": groups,
        "kv_channels": head_dim, "layernorm_epsilon": 1e-6, "apply_layernorm_1p": True,
        "x_rescale_factor": r.choice([1, 1, 0.1, 0.5]), "half_channel_vae": half, "params_dtype": "torch.float32",
        "patch_size": 2, "t_patch_size": 1, "in_channels": 32 if half else 16, "out_channels": 32 if half else 16,
        "cond_hidden_ratio": 0.25, "caption_channels": TEXT_DIM, "caption_max_length": TEXT_LEN,
        "xattn_cond_hidden_ratio": 1.0, "cond_gating_ratio": 1.0, "gated_linear_unit": r.random() < 0.3,
    }  # fmt: skip


def runtime_config(r: random.Random, distilled: bool) -> dict:
    window = r.choice([1, 2, 3, 4, 4, 4, 6])
    steps = 12 if 12 % window == 0 and r.random() < 0.15 else window * r.randint(1, 4)
    lengths = [length for length in (1, 2, 4, 5) if steps % length == 0]
    ranges = sorted((r.randint(1, 6) for _ in range(r.choice(lengths))), reverse=r.random() < 0.8)
    starts = [0.0, *sorted(round(r.uniform(0.01, 0.99), 4) for _ in range(r.choice([0, 2, 4])))]
    return {
        "cfg_number": 1 if distilled else 3, "cfg_t_range": starts,
        "prev_chunk_scales": [round(r.uniform(0.5, 2), 2) for _ in starts],
        "text_scales": [round(r.uniform(0, 8), 2) for _ in starts],
        "noise2clean_kvrange": [] if r.random() < 0.4 else ranges, "clean_chunk_kvrange": r.choice([-1, 1, 1, 2, 3]),
        "clean_t": r.choice([0.9999, 0.9999, 1.0, 0.95]), "seed": 1, "video_size_h": 8 * r.choice([4, 6]),
        "video_size_w": 8 * r.choice([4, 6, 8]), "num_steps": steps, "window_size": window,
        "fps": r.choice([16, 24, 30]), "chunk_width": r.choice([1, 2, 2, 3, 6]), "load": "x", "t5_pretrained": "x",
        "t5_device": "cpu", "vae_pretrained": "x", "scale_factor": 0.18215, "temporal_downsample_factor": 4,
    }  # fmt: skip


def engine_config(r: random.Random, distilled: bool) -> dict:
    return {
        "distributed_backend": "gloo", "cp_size": 1, "cp_strategy": "none", "fp8_quant": False, "kv_offload": False,
        "distill_nearly_clean_chunk_threshold": r.choice([0.3, 0.3, 0.1, 0.6, 0.95]), "distill": distilled,
        "shortcut_mode": r.choice(["8,16,16", "16,16,8"]),
    }  # fmt: skip


def environment(r: random.Random, distilled: bool) -> dict[str, str]:
    env = {pad: "1" for pad in PADS if r.random() < 0.4} | {"NEG_PROMPT": r.choice(["0", "true"])}
    return env | ({"prev_chunks_scale": f"{r.uniform(0, 1.3):.2f}"} if distilled and r.random() < 0.4 else {})


def flowcache(r: random.Random, window: int) -> tuple[dict, dict | None]:
    reuse = {
        "rel_l1_thresh": r.choice([0, 0.002, 0.01, 0.02, 0.05, 0.1, 0.3, 5.0]),
        "warmup_steps": r.choice([0, 0, 1, 2, 5]), "discard_nearly_clean_chunk": r.random() < 0.7,
        "compress_kv_cache": r.random() < 0.5, "total_cache_chunk_nums": window + r.choice([1, 1, 2, 3]),
    }  # fmt: skip
    unit = r.choice(["token", "frame", "chunk"])
    compression = {
        "compress_strategy": unit, "mix_lambda": r.choice([0.0, 0.07, 0.5, 0.9, 1.0]), "power": r.choice([1.5, 2, 3]),
        "query_granularity": r.choice(["token", "frame", "chunk"]),
        "score_weighting_method": r.choice(WEIGHTINGS) if unit == "token" else "no_weight",
    }  # fmt: skip
    return reuse, compression if reuse["compress_kv_cache"] else None


def tensors(
    case: dict, shape: tuple[int, int, int], prefix: int, words: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    special = torch.Generator().manual_seed(0)  # the same in all runs: the official code reads them once
    rows = {"other_tokens": 100, "caption_token": 1, "logo_token": 1}
    weights = model_of(case["config"]["model_config"]).state_dict()
    made = {f"w.{name}": weight(name, x, generator) for name, x in weights.items()}
    made |= {f"special.{name}": torch.randn(count, TEXT_DIM, generator=special) for name, count in rows.items()}
    made |= {"caption_embs": normal(1, 1, TEXT_LEN, TEXT_DIM), "x0": normal(1, 16, *shape)}
    made["caption_mask"] = (torch.arange(TEXT_LEN)[None] < words).float()
    return made | ({"prefix": normal(1, 16, prefix, *shape[1:])} if prefix else {})


def weight(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Such that activations neither vanish nor grow."""
    drawn = torch.randn(like.shape, generator=generator)
    if name == "rope.bands":
        return like * (1 + 0.05 * drawn)
    if "null_caption" in name:
        return drawn
    if like.ndim > 1:
        return 1.2 * drawn / like[0].numel() ** 0.5
    return 0.1 * drawn + name.endswith("layer_norm.weight")


def model_of(given: dict) -> MagiTransformer:
    sizes = {field: given[key] for key, field in (COUNTS | SWITCHES | NUMBERS).items()}
    channels = given["in_channels"] // (2 if given["half_channel_vae"] else 1)
    condition = int(given["hidden_size"] * given["cond_hidden_ratio"])
    patch = given["t_patch_size"], given["patch_size"], given["patch_size"]
    return MagiTransformer(MagiConfig(**sizes, channels=channels, condition_dim=condition, patch=patch))


def write(folder: Path, name: str, case: dict, data: dict[str, torch.Tensor]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(case))
    save_file(data, folder / f"{name}.safetensors")
