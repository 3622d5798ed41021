"""Where the parts of a SkyReels-V2 checkpoint lie: the official and the diffusers layout. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from flowcache.families.layouts import DIFFUSERS, Layout, check_unmixed, diffusers, diffusers_marks

OFFICIAL = "official one of SkyReels-V2"
VAE = "Wan2.1_VAE.pth"
TEXT = "models_t5_umt5-xxl-enc-bf16.pth"
TOKENIZER = "google/umt5-xxl"


def marks(path: Path) -> Mapping[str, Sequence[str]]:
    """See `Family.marks`."""
    own = [mark for mark in ("config.json", VAE, TEXT) if (path / mark).is_file()]
    return {DIFFUSERS: diffusers_marks(path), OFFICIAL: own}


def layout(folder: Path) -> Layout:
    """See `Family.layout`."""
    found = marks(folder)
    check_unmixed(folder, found)
    return official(folder) if found[OFFICIAL] else diffusers(folder)


def official(folder: Path) -> Layout:
    vae, text, tokenizer = (folder / name for name in (VAE, TEXT, TOKENIZER))
    return Layout("official", folder, folder / "config.json", folder, vae, text, tokenizer)
