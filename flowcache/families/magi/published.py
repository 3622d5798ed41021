"""What the published MAGI-1 config files say of a model, in our terms. No torch."""

from pathlib import Path
from typing import Any

from flowcache.families.magi.config_file import read
from flowcache.families.magi.pipeline import Pipeline

# FlowCache's for MAGI-1: the thresholds and the warm-up of its VBench runs and of its example.
PRESETS = {
    "slow": {"threshold": 0.01, "ret_steps": 5, "coefficients": (1.0, 0.0)},
    "fast": {"threshold": 0.015, "ret_steps": 5, "coefficients": (1.0, 0.0)},
}
HISTORY, AHEAD = 4, 6  # chunks of a segment: those that the last one before it saw, and those that it adds
T5 = "t5-v1_1-xxl"  # its folder below `t5_pretrained`
SPECIAL_TOKENS = "special_tokens.npz"
SPECIAL_TOKENS_SOURCE = "it lies in example/assets of the MAGI-1 repository: put it beside the config file"


def settings(file: Path) -> dict[str, Any]:
    """The keys of a `flowcache.json` for one of these; InputError as for `read`."""
    raw = read(file)
    model, runtime = raw["model_config"], raw["runtime_config"]
    chunk, steps, window = runtime["chunk_width"], runtime["num_steps"], runtime["window_size"]
    return {
        "name": file.stem.removesuffix("_config"),
        "family": "magi",
        "chunk": chunk,
        "window": (HISTORY + AHEAD) * chunk,
        "overlap": HISTORY * chunk,
        "channels": model["in_channels"] // (2 if model["half_channel_vae"] else 1),
        "time_stride": runtime["temporal_downsample_factor"],
        "causal": False,
        "patch": model["patch_size"],
        "fps": runtime["fps"],
        "width": runtime["video_size_w"],
        "height": runtime["video_size_h"],
        "frames": runtime["num_frames"],
        "steps": steps,
        "guidance": runtime["text_scales"][0] if runtime["cfg_number"] == 3 else 1.0,
        "shift": 3.0,
        "ar_step": steps // window,
        "condition_noise": 0.0,
        "reuse": PRESETS,
        "pipeline": pipeline(raw),
    }


def pipeline(raw: dict[str, Any]) -> Pipeline:
    runtime, engine = raw["runtime_config"], raw["engine_config"]
    return Pipeline(
        window=runtime["window_size"],
        passes=int(runtime["cfg_number"]),
        guidance_times=tuple(runtime["cfg_t_range"]),
        previous_scales=tuple(runtime["prev_chunk_scales"]),
        text_scales=tuple(runtime["text_scales"]),
        kv_ranges=tuple(runtime["noise2clean_kvrange"]),
        clean_kv_range=runtime["clean_chunk_kvrange"],
        clean_time=runtime["clean_t"],
        near_clean=engine["distill_nearly_clean_chunk_threshold"],
        shortcut=engine["shortcut_mode"],
        distilled=engine["distill"],
    )


def places(file: Path, raw: dict[str, Any]) -> dict[str, Path]:
    """Folders of the weights (`load`), of T5 and of the VAE, and the file of special tokens.

    A relative path is looked for beside the file and then in each folder above; the official code takes it from
    wherever it is started.
    """
    runtime = raw["runtime_config"]
    load, t5, vae = (_placed(file, runtime[key]) for key in ("load", "t5_pretrained", "vae_pretrained"))
    engine = raw["engine_config"]
    weights = f"inference_weight{'.fp8' * engine['fp8_quant']}{'.distill' * engine['distill']}"
    special = [_placed(file, place + SPECIAL_TOKENS) for place in ("", "assets/", "example/assets/")]
    return {
        "transformer": load / weights,
        "text_encoder": t5 / T5 if (t5 / T5).is_dir() else t5,
        "vae": vae,
        "special_tokens": next((path for path in (*special, load / SPECIAL_TOKENS) if path.exists()), special[0]),
    }


def _placed(file: Path, name: str) -> Path:
    folders = file.absolute().parents
    return next((folder / name for folder in folders if (folder / name).exists()), folders[0] / name)
