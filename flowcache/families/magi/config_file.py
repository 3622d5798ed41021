"""Every value of an official MAGI-1 config file (example/*/*_config.json), looked at before it is used. No torch."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowcache.errors import InputError, Problem
from flowcache.families.magi.config import MagiConfig
from flowcache.models.json_files import read_object

SECTIONS = ("model_config", "runtime_config", "engine_config")

# Key of `model_config` -> field of MagiConfig.
COUNTS = {
    "num_layers": "layers",
    "hidden_size": "dim",
    "ffn_hidden_size": "ffn_dim",
    "num_attention_heads": "heads",
    "num_query_groups": "kv_heads",
    "kv_channels": "head_dim",
    "caption_channels": "text_dim",
    "caption_max_length": "text_len",
}
SWITCHES = {"gated_linear_unit": "gated", "half_channel_vae": "half_channel"}
NUMBERS = {"x_rescale_factor": "rescale", "layernorm_epsilon": "eps"}

# What is accepted, in words and as a test.
Rule = tuple[str, Callable[[Any], bool]]
COUNT: Rule = "a whole number above 0", lambda value: type(value) is int and value > 0


def up_to(most: int) -> Rule:
    return f"a whole number from 1 to {most:,}", lambda value: COUNT[1](value) and value <= most


NUMBER: Rule = "a number above 0", lambda value: _number(value) and value > 0
SWITCH: Rule = "true or false", lambda value: type(value) is bool
NAME: Rule = "a path", lambda value: isinstance(value, str) and value != ""
SCALES: Rule = (
    "a list of numbers",
    lambda value: isinstance(value, list) and value != [] and all(map(_number, value)),
)
RANGES: Rule = (
    "a list of whole numbers above 0, or an empty one for all chunks",
    lambda value: isinstance(value, list) and all(COUNT[1](x) for x in value),
)


PAIR: Rule = (
    "two whole numbers above 0",
    lambda value: isinstance(value, list) and len(value) == 2 and all(COUNT[1](x) for x in value),
)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def only(*values: Any) -> Rule:
    def holds(value: Any) -> bool:
        return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in values)

    return " or ".join(map(json.dumps, values)), holds


ACCEPTED = "a MAGI-1 config with model_config, runtime_config and engine_config"

RULES: dict[str, dict[str, Rule]] = {
    "model_config": {
        **dict.fromkeys([*COUNTS, "patch_size", "in_channels", "out_channels"], COUNT),
        **dict.fromkeys([*NUMBERS, "cond_hidden_ratio"], NUMBER),
        **dict.fromkeys(SWITCHES, SWITCH),
        # what every published model has, and this transformer knows alone
        "apply_layernorm_1p": only(True),
        **dict.fromkeys(("xattn_cond_hidden_ratio", "cond_gating_ratio", "t_patch_size"), only(1)),
    },
    "runtime_config": {
        **dict.fromkeys(("video_size_h", "video_size_w"), up_to(8192)),
        "num_frames": up_to(1_000_000),
        **dict.fromkeys(("num_steps", "window_size"), up_to(1000)),
        "fps": up_to(120),
        "chunk_width": up_to(1024),
        **dict.fromkeys(("cfg_t_range", "prev_chunk_scales", "text_scales"), SCALES),
        **dict.fromkeys(("load", "t5_pretrained", "vae_pretrained"), NAME),
        "cfg_number": only(1, 3),
        "noise2clean_kvrange": RANGES,
        "clean_chunk_kvrange": ("-1 or a whole number above 0", lambda value: value == -1 or COUNT[1](value)),
        "clean_t": ("a number from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1),
        "scale_factor": only(0.18215),
        "temporal_downsample_factor": only(4),
    },
    "engine_config": {
        "distill": SWITCH,
        "fp8_quant": SWITCH,
        "distill_nearly_clean_chunk_threshold": NUMBER,
        "shortcut_mode": only("8,16,16", "16,16,8"),
    },
}


def read(file: Path) -> dict[str, Any]:
    """The whole file, every value that is used looked at; InputError names each that is missing or not accepted."""
    raw = read_object(file)
    problems = [Problem(str(file), name, f"is missing; accepted: {ACCEPTED}") for name in SECTIONS if name not in raw]
    if problems:
        raise InputError(problems)
    for section in SECTIONS:
        problems += _faults(file, raw[section], RULES[section], f"{section}.")
    if not problems:
        problems = _mismatches(file, raw)
    if problems:
        raise InputError(problems)
    return raw


def is_config(file: Path, key: str = "model_config") -> bool:
    """Whether a file is one of these, sound or not, by a key that no other family's config has."""
    try:
        return key in read_object(file)
    except InputError:
        return False


def read_config(file: Path) -> MagiConfig:
    """The transformer's shape, of one of these or of a file that holds its `model_config` alone.

    `positions`: a further key that tiny models have. InputError as for `read`.
    """
    whole = read_object(file)
    raw, prefix = (whole["model_config"], "model_config.") if "model_config" in whole else (whole, "")
    tiny = isinstance(raw, dict) and "positions" in raw
    rules = RULES["model_config"] | ({"positions": PAIR} if tiny else {})
    problems = _faults(file, raw, rules, prefix) or _misfits(file, raw, prefix)
    if problems:
        raise InputError(problems)
    sizes = {field: raw[key] for key, field in (COUNTS | SWITCHES | NUMBERS).items()}
    channels = raw["in_channels"]
    return MagiConfig(
        **sizes,
        channels=channels // 2 if sizes["half_channel"] else channels,
        condition_dim=int(raw["hidden_size"] * raw["cond_hidden_ratio"]),
        patch=(1, raw["patch_size"], raw["patch_size"]),
        positions=tuple(raw["positions"]) if tiny else None,
    )


def _faults(file: Path, given: Any, rules: dict[str, Rule], prefix: str = "") -> list[Problem]:
    if not isinstance(given, dict):
        return [Problem(str(file), prefix.rstrip("."), f"is {given!r}; accepted: an object")]
    missing = [Problem(str(file), prefix + key, "is missing") for key in rules if key not in given]
    return missing + [
        Problem(str(file), prefix + key, f"got {given[key]!r}; accepted: {accepted}")
        for key, (accepted, holds) in rules.items()
        if key in given and not holds(given[key])
    ]


def _misfits(file: Path, model: dict[str, Any], prefix: str = "model_config.") -> list[Problem]:
    """Sizes that don't go together."""
    width = model["num_attention_heads"] * model["kv_channels"]
    found = {
        "num_query_groups": (model["num_attention_heads"] % model["num_query_groups"], "a divisor of the heads"),
        "kv_channels": (model["kv_channels"] % 8 or width % 8, "a multiple of 8"),
        "out_channels": (model["in_channels"] != model["out_channels"], f"{model['in_channels']}, as in_channels"),
        "in_channels": (model["half_channel_vae"] and model["in_channels"] % 2, "an even number for half_channel_vae"),
        "caption_max_length": (model["caption_max_length"] < 2, "2 or more"),
    }
    return [Problem(str(file), prefix + key, f"got {model[key]!r}; accepted: {accepted}")
            for key, (wrong, accepted) in found.items() if wrong]  # fmt: skip


def _mismatches(file: Path, raw: dict[str, Any]) -> list[Problem]:
    """Values of the sampler that don't go together."""
    runtime, engine = raw["runtime_config"], raw["engine_config"]
    problems = _misfits(file, raw["model_config"])
    lengths = {key: len(runtime[key]) for key in ("cfg_t_range", "prev_chunk_scales", "text_scales")}
    if len(set(lengths.values())) != 1:
        spelled = ", ".join(f"{key} {count}" for key, count in lengths.items())
        problems.append(Problem(str(file), "runtime_config", f"holds lists of unequal length: {spelled}"))
    passes = (1,) if engine["distill"] else (1, 3) if engine["fp8_quant"] else (3,)  # officially 1 for all of 8 bits
    if runtime["cfg_number"] not in passes:
        kind = "a distilled model" if engine["distill"] else "a base model"
        message = f"got {runtime['cfg_number']}; accepted: {' or '.join(map(str, passes))} for {kind}"
        problems.append(Problem(str(file), "runtime_config.cfg_number", message))
    return problems
