"""Writes a toy's checkpoint. Needs `toy_family` on the path."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

SPEC = {
    "name": "toy-1",
    "family": "toy",
    "chunk": 2,
    "window": 4,
    "overlap": 2,
    "channels": 3,
    "causal": False,
    "patch": 1,
    "fps": 8,
    "width": 64,
    "height": 48,
    "frames": 16,
    "steps": 6,
    "guidance": 1.0,
    "reuse": {"slow": {"threshold": 0.5, "warmup_steps": 1, "coefficients": [1.0, 0.0]}},
}
SHAPE = {"dim": 16, "heads": 2}


def write_toy(folder: Path) -> Path:
    from toy_family.config import ToyConfig
    from toy_family.model import ToyCodec, ToyTransformer

    torch.manual_seed(0)
    (folder / "flowcache.json").parent.mkdir(parents=True)
    (folder / "flowcache.json").write_text(json.dumps(SPEC))
    (folder / "toy.json").write_text(json.dumps(SHAPE))
    for name, module in (("weights", ToyTransformer(ToyConfig(**SHAPE))), ("codec", ToyCodec())):
        (folder / name).mkdir()
        save_file(module.state_dict(), folder / name / "model.safetensors")
    (folder / "codec" / "config.json").write_text('{"_class_name": "ToyCodec"}')
    return folder
