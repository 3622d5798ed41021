"""Where the parts of a checkpoint lie: the diffusers layout, and the official one of SkyReels-V2. No torch."""

from dataclasses import dataclass
from pathlib import Path

from flowcache.errors import InputError, Problem

OFFICIAL_VAE = "Wan2.1_VAE.pth"
OFFICIAL_TEXT = "models_t5_umt5-xxl-enc-bf16.pth"
OFFICIAL_TOKENIZER = "google/umt5-xxl"
DIFFUSERS_MARK = "model_index.json"


@dataclass(frozen=True)
class Layout:
    """Paths of a checkpoint's parts; `vae` and `text_encoder` are folders (diffusers) or .pth files (official)."""

    name: str
    folder: Path
    transformer: Path
    vae: Path
    text_encoder: Path
    tokenizer: Path

    def missing(self) -> list[Problem]:
        parts = (self.transformer / "config.json", self.vae, self.text_encoder, self.tokenizer)
        return [Problem(str(part), "", f"is missing; the {self.name} layout holds it") for part in parts
                if not part.exists()]  # fmt: skip


def diffusers(folder: Path) -> Layout:
    names = ("transformer", "vae", "text_encoder", "tokenizer")
    return Layout("diffusers", folder, *(folder / name for name in names))


def official(folder: Path) -> Layout:
    names = (OFFICIAL_VAE, OFFICIAL_TEXT, OFFICIAL_TOKENIZER)
    return Layout("official", folder, folder, *(folder / name for name in names))


def layout_of(folder: Path) -> Layout | None:
    """The layout by what lies at the folder's top; None: no checkpoint. InputError where two are mixed."""
    is_diffusers = (folder / DIFFUSERS_MARK).is_file() or (folder / "transformer" / "config.json").is_file()
    marks = ("config.json", OFFICIAL_VAE, OFFICIAL_TEXT)
    is_official = [mark for mark in marks if (folder / mark).is_file()]
    if is_diffusers and is_official:
        mixed = f"mixes two layouts: the diffusers layout ({DIFFUSERS_MARK}) and the official one ({is_official[0]})"
        raise InputError([Problem(str(folder), "", mixed)])
    if is_diffusers:
        return diffusers(folder)
    return official(folder) if is_official else None


def parts_of(folder: Path) -> Layout:
    """Where the parts of any checkpoint lie that `registry.find` knows; a bundled one is laid out as for diffusers."""
    return layout_of(folder) or diffusers(folder)
