"""Writes a trained run as a checkpoint folder: python -m training.export --run runs/tiny --codec runs/codec --to FOLDER

The averaged weights are stored in fp16, the transformer in diffusers' layout. Reuse presets are
measured afterwards: python -m training.calibrate --model FOLDER.
"""

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import save_file

from flowcache.models.skyreels.weights import to_diffusers
from training.noise import PREFIX_SIGMA, SHIFT
from training.sample import load_average
from training.shapes import CHANGE, FRAMES, SIZE, vocabulary
from training.train import CHUNK, CONFIG, FPS

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
    "vocabulary": vocabulary(),
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


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def export(run: Path, codec: Path, to: Path) -> None:
    """The folder that `flowcache.models.registry.find` takes; its card and reuse presets, where there, stay."""
    model, tokenizer, state = load_average(run)
    old = json.loads((to / "flowcache.json").read_text()) if (to / "flowcache.json").exists() else {}
    write_json(to / "flowcache.json", SPEC | {"reuse": old.get("reuse", {})})
    write_json(to / "transformer" / "config.json", transformer_config())
    tensors = to_diffusers(model.transformer.state_dict())
    tensors = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, to / "transformer" / "diffusion_pytorch_model.safetensors")
    model.text_encoder.half().save_pretrained(to / "text_encoder")
    tokenizer.save_pretrained(to / "tokenizer")
    path = to / "tokenizer" / "tokenizer_config.json"  # a class name that older transformers know too
    write_json(path, json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"})
    shutil.copytree(codec, to / "vae", dirs_exist_ok=True)
    for file in to.rglob("*.safetensors"):
        file.chmod(0o644)
    print(f"step {state['step']}, {state['spent'] / 60:.0f} minutes, loss {state['loss']:.4f} -> {to}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("run", "codec", "to"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    export(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
