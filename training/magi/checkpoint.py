"""What an exported `tiny-magi` says of itself, and its files with the published names."""

from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from flowcache.bench.shapes import SIZE
from flowcache.families.magi.captions import ARRAY, read_special_tokens
from flowcache.families.magi.published import SPECIAL_TOKENS
from training.magi.data import CHUNK
from training.magi.model import CONFIG, FPS, Tiny
from training.magi.noise import CLEAN, SHIFT, STAGES
from training.text import save_text, take_encoder, write_json

STEPS = 32
WEIGHTS = "model.safetensors"
SPEC = {
    "name": "tiny-magi",
    "family": "magi",
    "chunk": CHUNK,
    "window": 8 * CHUNK,
    "overlap": CHUNK,  # no chunk sees more than one finished one before it
    "channels": CONFIG.channels,
    "time_stride": 4,
    "causal": False,
    "space_stride": 8,
    "patch": CONFIG.patch[1],
    "fps": FPS,
    "width": SIZE,
    "height": SIZE,
    "sizes": [[SIZE, SIZE]],
    "frames": 3 * CHUNK * 4,
    "steps": STEPS,
    "max_steps": 200,
    "guidance": 7.5,
    "shift": SHIFT,
    "ar_step": STEPS // STAGES,
    "condition_noise": 0.0,
    "negative_prompt": "",
    "reuse": {},
    "pipeline": {
        "window": STAGES,
        "passes": 3,
        "guidance_times": [0.0, 0.0217, 0.1, 0.3, 0.999],
        "previous_scales": [1.5, 1.5, 1.5, 1.0, 1.0],
        "text_scales": [7.5, 7.5, 7.5, 3.75, 3.75],
        "kv_ranges": [5, 4, 3, 2],
        "clean_kv_range": 1,
        "clean_time": CLEAN,
    },
}


def transformer_config() -> dict:
    """The `model_config` of the official files, and our `positions`."""
    return {
        "model_name": "videodit_ardf",
        "num_layers": CONFIG.layers,
        "hidden_size": CONFIG.dim,
        "ffn_hidden_size": CONFIG.ffn_dim,
        "num_attention_heads": CONFIG.heads,
        "num_query_groups": CONFIG.kv_heads,
        "kv_channels": CONFIG.head_dim,
        "layernorm_epsilon": CONFIG.eps,
        "apply_layernorm_1p": True,
        "x_rescale_factor": CONFIG.rescale,
        "half_channel_vae": CONFIG.half_channel,
        "patch_size": CONFIG.patch[1],
        "t_patch_size": CONFIG.patch[0],
        "in_channels": CONFIG.channels,
        "out_channels": CONFIG.channels,
        "cond_hidden_ratio": CONFIG.condition_dim / CONFIG.dim,
        "caption_channels": CONFIG.text_dim,
        "caption_max_length": CONFIG.text_len,
        "xattn_cond_hidden_ratio": 1.0,
        "cond_gating_ratio": 1.0,
        "gated_linear_unit": CONFIG.gated,
        "positions": list(CONFIG.positions),
    }


def write(model: Tiny, tokenizer, folder: Path) -> None:
    """`transformer`, `text_encoder`, `tokenizer` and the special tokens, fp16."""
    write_json(folder / "transformer" / "config.json", transformer_config())
    tensors = {name: tensor.half().contiguous() for name, tensor in model.transformer.state_dict().items()}
    save_file(tensors, folder / "transformer" / WEIGHTS)
    np.savez(folder / SPECIAL_TOKENS, **{ARRAY: model.special_tokens.numpy().astype(np.float16)})
    save_text(model.text_encoder, tokenizer, folder)


def take_up(model: Tiny, folder: Path) -> None:
    """The weights of what `write` wrote."""
    stored = load_file(folder / "transformer" / WEIGHTS)
    model.transformer.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    special = read_special_tokens(folder / SPECIAL_TOKENS, CONFIG.text_dim)
    model.special_tokens.data.copy_(special.rows)
    take_encoder(model.text_encoder, folder)
