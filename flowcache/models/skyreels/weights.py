"""SkyReels-V2 weights on disk: the official and the diffusers layout, into the same module."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flowcache.errors import InputError, Problem
from flowcache.models.skyreels.config import SkyReelsConfig
from flowcache.models.skyreels.transformer import SkyReelsTransformer

# Official name -> diffusers name, both as prefixes of a parameter name (block numbers already cut off).
TOP = {
    "time_embedding.0.": "condition_embedder.time_embedder.linear_1.",
    "time_embedding.2.": "condition_embedder.time_embedder.linear_2.",
    "text_embedding.0.": "condition_embedder.text_embedder.linear_1.",
    "text_embedding.2.": "condition_embedder.text_embedder.linear_2.",
    "time_projection.1.": "condition_embedder.time_proj.",
    "fps_projection.0.": "fps_projection.net.0.proj.",
    "fps_projection.2.": "fps_projection.net.2.",
    "head.modulation": "scale_shift_table",
    "head.head.": "proj_out.",
}
BLOCK = {
    "self_attn.norm_": "attn1.norm_",
    "cross_attn.norm_": "attn2.norm_",
    "self_attn.o.": "attn1.to_out.0.",
    "cross_attn.o.": "attn2.to_out.0.",
    "self_attn.": "attn1.to_",
    "cross_attn.": "attn2.to_",
    "norm3.": "norm2.",  # the affine norm before cross attention; the other two hold no parameters
    "ffn.0.": "ffn.net.0.proj.",
    "ffn.2.": "ffn.net.2.",
    "modulation": "scale_shift_table",
}
INDEX = "diffusion_pytorch_model.safetensors.index.json"


def to_diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_rename(name, TOP, BLOCK): tensor for name, tensor in state.items()}


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {official_name(name): tensor for name, tensor in state.items()}


def official_name(name: str) -> str:
    """The official name of a parameter given in either layout."""
    return _rename(name, {v: k for k, v in TOP.items()}, {v: k for k, v in BLOCK.items()})


def _rename(name: str, top: dict[str, str], block: dict[str, str]) -> str:
    match = re.match(r"blocks\.\d+\.", name)
    head, rest, table = (match[0], name[match.end() :], block) if match else ("", name, top)
    for old, new in table.items():
        if rest.startswith(old):
            return head + new + rest[len(old) :]
    return name


def read_config(folder: Path) -> SkyReelsConfig:
    """From `config.json` in either layout; InputError names a missing key."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text())
        if "num_attention_heads" in raw:  # diffusers
            dim = raw["num_attention_heads"] * raw["attention_head_dim"]
            positions = raw.get("positions")
            patch = tuple(raw["patch_size"])
            names = ("ffn_dim", "num_attention_heads", "num_layers", "in_channels", "out_channels", "text_dim")
            extra = {"patch": patch, "positions": tuple(positions) if positions else None}
        else:
            dim = raw["dim"]
            names = ("ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim", "text_dim")
            extra = {}
        ffn, heads, layers, channels_in, channels_out, text_dim = (raw[name] for name in names)
    except FileNotFoundError:
        raise InputError([Problem(str(path), "", "not found: a transformer folder holds config.json")]) from None
    except (KeyError, ValueError) as error:
        raise InputError([Problem(str(path), "", f"is no transformer config: {error!r}")]) from None
    return SkyReelsConfig(
        dim=dim,
        ffn_dim=ffn,
        heads=heads,
        layers=layers,
        in_channels=channels_in,
        out_channels=channels_out or channels_in,
        text_dim=text_dim,
        text_len=raw.get("text_len", 512),
        freq_dim=raw.get("freq_dim", 256),
        eps=raw.get("eps", 1e-6),
        inject_sample_info=bool(raw.get("inject_sample_info")),
        **extra,
    )


def load_transformer(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> SkyReelsTransformer:
    """Every parameter of the module from the folder's safetensors, straight to `device`.

    InputError names each tensor that is missing, unknown or of another shape.
    """
    folder = Path(folder)
    with torch.device("meta"):
        model = SkyReelsTransformer(read_config(folder))
    expected = dict(model.named_parameters())
    state: dict[str, Tensor] = {}
    problems = []
    for file, name, tensor in _tensors(folder, device):
        wanted = expected.get(official_name(name))
        if wanted is None:
            problems.append(Problem(str(file), name, "is no tensor of this model"))
        elif wanted.shape != tensor.shape:
            shapes = f"has shape {list(tensor.shape)}, the config asks for {list(wanted.shape)}"
            problems.append(Problem(str(file), name, shapes))
        else:
            state[official_name(name)] = tensor.to(dtype)
    missing = sorted(set(expected) - set(state) - {official_name(problem.field) for problem in problems})
    problems += [Problem(str(folder), name, "is missing") for name in missing]
    if problems:
        raise InputError(problems)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def _tensors(folder: Path, device: str) -> Iterator[tuple[Path, str, Tensor]]:
    for file in _files(folder):
        try:
            with safe_open(file, "pt", device=str(device)) as reader:
                for name in reader.keys():  # noqa: SIM118 (not a mapping)
                    yield file, name, reader.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise InputError([Problem(str(file), "", f"is no readable safetensors file: {error}")]) from None


def _files(folder: Path) -> list[Path]:
    """The index's shards, or every safetensors file of the folder."""
    index = folder / INDEX
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError([Problem(str(folder), "", "holds no *.safetensors file")])
    return files
