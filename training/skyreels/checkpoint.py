"""What an exported `tiny-skyreels` says of itself, and its files in diffusers' layout."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from flowcache.bench.shapes import CHANGE, FRAMES, SIZE
from flowcache.families.skyreels.weights import to_diffusers, to_official
from training.skyreels.model import CHUNK, CONFIG, FPS, WEIGHTS, Tiny
from training.skyreels.noise import PREFIX_SIGMA, SHIFT
from training.text import save_text, take_encoder, write_json

SPEC = {
    "name": "tiny-skyreels",
    "family": "skyreels",
    "chunk": CHUNK,
    "window": 1 + (FRAMES - 1) // 4,
    "overlap": 1 + (CHANGE - 1) // 4,
    "channels": CONFIG.in_channels,
    "time_stride": 4,
    "space_stride": 8,
    "patch": CONFIG.patch[1],
    "fps": FPS,
    "width": SIZE,
    "height": SIZE,
    "sizes": [[SIZE, SIZE]],
    "frames": FRAMES,
    "steps": 30,
    "max_steps": 200,
    "guidance": 3.0,
    "shift": SHIFT,
    "ar_step": 6,
    "condition_noise": PREFIX_SIGMA * 1000,
    "negative_prompt": "",
    "reuse": {},
}


def transformer_config() -> dict:
    """As diffusers names things, and our `positions`."""
    return {
        "_class_name": "SkyReelsV2Transformer3DModel",
        "num_attention_heads": CONFIG.heads,
        "attention_head_dim": CONFIG.head_dim,
        "in_channels": CONFIG.in_channels,
        "out_channels": CONFIG.out_channels,
        "text_dim": CONFIG.text_dim,
        "text_len": CONFIG.text_len,
        "freq_dim": CONFIG.freq_dim,
        "ffn_dim": CONFIG.ffn_dim,
        "num_layers": CONFIG.layers,
        "patch_size": list(CONFIG.patch),
        "qk_norm": "rms_norm_across_heads",
        "cross_attn_norm": True,
        "eps": CONFIG.eps,
        "inject_sample_info": CONFIG.inject_sample_info,
        "positions": list(CONFIG.positions),
    }


def write(model: Tiny, tokenizer, folder: Path) -> None:
    """`transformer`, `text_encoder` and `tokenizer`, fp16."""
    write_json(folder / "transformer" / "config.json", transformer_config())
    tensors = to_diffusers(model.transformer.state_dict())
    tensors = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "transformer" / WEIGHTS)
    save_text(model.text_encoder, tokenizer, folder)


def take_up(model: Tiny, folder: Path) -> None:
    """The weights of what `write` wrote."""
    stored = to_official(load_file(folder / "transformer" / WEIGHTS))
    model.transformer.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    take_encoder(model.text_encoder, folder)
