"""SkyReels-V2 weights on disk: the official and the diffusers layout, into the same module."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowcache.errors import InputError, Problem
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.models.build import built
from flowcache.models.json_files import read_object
from flowcache.models.part import Part
from flowcache.models.tensors import in_folder, read

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
MOST = 1_000_000
TEXT_DIM = 4096  # what official configs never say: the class keeps it out of them (`ignore_for_config`)
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


def to_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {diffusers_name(name): tensor for name, tensor in state.items()}


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {official_name(name): tensor for name, tensor in state.items()}


def diffusers_name(official: str) -> str:
    return _rename(official, TOP, BLOCK)


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
    """From `config.json` in either layout; InputError names what is missing or not as in any SkyReels-V2-DF."""
    path = folder / "config.json"
    raw = read_object(folder / "config.json", "transformer config")
    try:
        if "num_attention_heads" in raw:  # diffusers
            dim = _product(raw["num_attention_heads"], raw["attention_head_dim"])
            positions = raw.get("positions")
            names = ("ffn_dim", "num_attention_heads", "num_layers", "in_channels", "out_channels")
            extra = {"patch": tuple(raw["patch_size"]), "positions": tuple(positions) if positions else None}
        else:
            dim = raw["dim"]
            names = ("ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim")
            extra = {}
        ffn, heads, layers, channels_in, channels_out = (raw[name] for name in names)
        config = SkyReelsConfig(
            dim=dim,
            ffn_dim=ffn,
            heads=heads,
            layers=layers,
            in_channels=channels_in,
            out_channels=channels_out or channels_in,
            text_dim=raw.get("text_dim", TEXT_DIM),
            text_len=raw.get("text_len", 512),
            freq_dim=raw.get("freq_dim", 256),
            eps=raw.get("eps", 1e-6),
            inject_sample_info=bool(raw.get("inject_sample_info")),
            **extra,
        )
    except (KeyError, TypeError) as error:
        raise InputError([Problem(str(path), "", f"is no transformer config: {error!r}")]) from None
    _check(config, path)
    return config


def _product(heads: Any, width: Any) -> Any:
    """Of two numbers; else whichever is none."""
    if isinstance(heads, int) and isinstance(width, int):
        return heads * width
    return heads if isinstance(width, int) else width


def _check(config: SkyReelsConfig, path: Path) -> None:
    names = ("dim", "ffn_dim", "heads", "layers", "in_channels", "out_channels", "text_dim", "text_len", "freq_dim")
    values = {name: getattr(config, name) for name in names}
    problems = [
        Problem(str(path), name, f"got {str(value)[:60]!r}; accepted: a whole number from 1 to {MOST:,}")
        for name, value in values.items()
        if type(value) is not int or not 1 <= value <= MOST
    ]
    if type(config.eps) not in (int, float) or not 0 < config.eps < 1:
        problems.append(Problem(str(path), "eps", f"got {str(config.eps)[:60]!r}; accepted: a number from 0 to 1"))
    for name, sizes, count in (("patch_size", config.patch, 3), ("positions", config.positions or (1, 1), 2)):
        if len(sizes) != count or any(type(size) is not int or size < 1 for size in sizes):
            accepted = f"{count} whole numbers above 0"
            problems.append(Problem(str(path), name, f"got {str(list(sizes))[:60]}; accepted: {accepted}"))
    if not problems and config.dim % (2 * config.heads):
        problems.append(Problem(str(path), "", f"{config.heads} heads don't share a width of {config.dim} evenly"))
    if not problems and config.in_channels != config.out_channels:
        channels = f"takes {config.in_channels} channels and gives {config.out_channels}"
        problems.append(Problem(str(path), "", f"{channels}; accepted: SkyReels-V2-DF, which takes what it gives"))
    if problems:
        raise InputError(problems)


def _layout(folder: Path) -> str:
    raw = read_object(folder / "config.json", "transformer config")
    return "diffusers" if "num_attention_heads" in raw else "official"


def transformer_part(folder: Path) -> Part[SkyReelsTransformer]:
    """What a transformer folder holds, in either layout; InputError where config or files can't be read."""
    config, layout = read_config(folder), _layout(folder)
    module = built(lambda: SkyReelsTransformer(config), folder / "config.json", vars(config))

    def rename(name: str) -> str | None:
        official = official_name(name)
        translated = official if layout == "official" else diffusers_name(official)
        return official if translated == name else None

    return Part(folder, module, in_folder(folder), rename)


def load_time_embedding(folder: Path) -> SkyReelsTransformer:
    """A transformer of which only `condition` and `signal` work, in float32; the rest has no memory."""
    part = transformer_part(Path(folder))
    if problems := part.problems():
        raise InputError(problems)
    named = [(part.name_of(entry), entry) for entry in part.stored]
    wanted = {entry.name: name for name, entry in named if name.startswith(("time_", "fps_", "patch_embedding."))}
    tensors = read([entry for _, entry in named if entry.name in wanted], "cpu")
    state = {wanted[entry.name]: tensor.float() for entry, tensor in tensors}
    part.module.load_state_dict(state, strict=False, assign=True)
    return part.module.requires_grad_(False).eval()


def keep_float32(name: str) -> bool:
    """What stays in float32 where the rest is bfloat16: head, and as in diffusers time embedding, modulation, norm."""
    return name.startswith(("time_", "head.")) or "modulation" in name or ".norm3." in name
