"""What the published SkyReels-V2-DF checkpoints do not say in their own files. No torch."""

from pathlib import Path
from typing import Any

from flowcache.errors import InputError, Problem
from flowcache.models.json_files import read_object

# (width, height) and video frames of a window by what a checkpoint's path says: the official README's table of models
# and its --base_num_frames, "97 for 540P, 121 for 720P".
SIZES = {"540P": (960, 544, 97), "720P": (1280, 720, 121)}
CHUNK = 5  # latent frames: the README's --causal_block_size

# What the official program (generate_video_df.py) always gives as negative prompt: data of that program.
NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)

# FlowCache's polynomials for these models (highest power first). "ret" always computes a chunk's first 5 steps,
# the other kind only the first. The thresholds are those that FlowCache's authors run "ret" of 1.3B 540P with.
POLYNOMIALS = {
    ("1.3B", "ret"): (-5.21862437e04, 9.23041404e03, -5.28275948e02, 1.36987616e01, -4.99875664e-02),
    ("1.3B", "noret"): (2.39676752e03, -1.31110545e03, 2.01331979e02, -8.29855975e00, 1.37887774e-01),
    ("14B", "ret"): (-3.03318725e05, 4.90537029e04, -2.65530556e03, 5.87365115e01, -3.15583525e-01),
    ("14B", "noret"): (-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404),
}
THRESHOLDS = {"slow": 0.1, "fast": 0.15}
RET_STEPS = {"ret": 5, "noret": 1}


def settings(folder: Path, transformer: Path) -> dict[str, Any]:
    """The keys of a `flowcache.json` for a checkpoint of either layout; InputError for another model's config."""
    raw = _config(transformer / "config.json")
    where = str(folder.resolve()).upper()
    width, height, base = SIZES["720P" if "720P" in where else "540P"]
    # 121 frames are 31 latent ones; generate_timestep_matrix (diffusion_forcing_pipeline.py) counts whole chunks,
    # base_num_frames // causal_block_size: 6 of them, 30 latent frames, 117 frames.
    window = (1 + (base - 1) // 4) // CHUNK * CHUNK
    return {
        "name": folder.resolve().name,
        "family": "skyreels",
        "chunk": CHUNK,
        "window": window,
        "overlap": 5,
        "channels": raw.get("in_channels") or raw["in_dim"],
        "fps": 24,
        "width": width,
        "height": height,
        "frames": 1 + (window - 1) * 4,
        "steps": 50,
        "guidance": 6.0,
        "shift": 8.0,
        "ar_step": 5,
        "condition_noise": 20.0,
        "reuse": presets("14B" if raw["num_layers"] == 40 else "1.3B"),
    }


def presets(size: str) -> dict[str, dict[str, Any]]:
    """Of policy `paper`: slow and fast with "ret", and slow-noret, fast-noret without."""
    found = {}
    for kind in ("ret", "noret"):
        for speed, threshold in THRESHOLDS.items():
            name = speed if kind == "ret" else f"{speed}-{kind}"
            coefficients = POLYNOMIALS[size, kind]
            found[name] = {"threshold": threshold, "ret_steps": RET_STEPS[kind], "coefficients": coefficients}
            if kind == "noret":  # fitted to the time embedding, at which the official TeaCache then looks
                found[name]["signal"] = "time"
    return found


def _config(path: Path) -> dict:
    accepted = "accepted: that of a SkyReels-V2-DF transformer, official or of diffusers"
    raw = read_object(path, "transformer config")
    missing = [key for key in ("num_layers",) if key not in raw]
    if not ("in_channels" in raw or "in_dim" in raw):
        missing.append("in_dim")
    if not ("num_attention_heads" in raw or "num_heads" in raw):
        missing.append("num_heads")
    if missing:
        raise InputError([Problem(str(path), key, f"is missing; {accepted}") for key in missing])
    return raw
