"""Where the parts of a MAGI-1 checkpoint lie: as its official config file says, or as for diffusers. No torch."""

import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from flowcache.errors import InputError, Problem
from flowcache.families.layouts import DIFFUSERS, Extra, Layout, check_unmixed, diffusers, diffusers_marks
from flowcache.families.magi.config_file import is_config, read
from flowcache.families.magi.published import SPECIAL_TOKENS, SPECIAL_TOKENS_SOURCE, places

OFFICIAL = "official one of MAGI-1"


def marks(path: Path) -> Mapping[str, Sequence[str]]:
    """See `Family.marks`."""
    if path.is_file():
        return {OFFICIAL: [path.name] if path.suffix == ".json" else []}
    config = path / "transformer" / "config.json"
    own = is_config(config) or is_config(config, "num_query_groups")
    configs = [file.name for file in sorted(path.glob("*.json")) if is_config(file)]
    return {DIFFUSERS: diffusers_marks(path) if own else [], OFFICIAL: configs}


def layout(path: Path) -> Layout:
    """See `Family.layout`. InputError for a faulty config, and where there are several."""
    if path.is_file():
        return official(path)
    found = marks(path)
    check_unmixed(path, found)
    configs = found[OFFICIAL]
    if len(configs) > 1:
        several = f"holds {len(configs)} configs of MAGI-1: {', '.join(configs)}; give one of them by its path"
        raise InputError([Problem(str(path), "", several)])
    if configs:
        return official(path / configs[0])
    special = path / SPECIAL_TOKENS
    return diffusers(path, (Extra(special, SPECIAL_TOKENS_SOURCE),) if special.exists() else ())


def official(file: Path) -> Layout:
    found = places(file, read(file))
    special = Extra(found["special_tokens"], SPECIAL_TOKENS_SOURCE)
    text = found["text_encoder"]
    return Layout("official", file, file, found["transformer"], found["vae"], text, text, (special,))


def special_tokens(layout: Layout) -> Path | None:
    """The file of those that stand before captions; None: the model has none."""
    return layout.extras[0].path if layout.extras else None


@cache
def token_arrays(path: str) -> frozenset[str]:
    """Names of the arrays of special tokens that a checkpoint has; `damage` says what is wrong with their file."""
    file = special_tokens(layout(Path(path)))
    try:
        with zipfile.ZipFile(file or "") as arrays:
            return frozenset(name.removesuffix(".npy") for name in arrays.namelist())
    except (OSError, zipfile.BadZipFile):
        return frozenset()
