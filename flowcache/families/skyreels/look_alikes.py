"""Other models whose checkpoints are laid out as those of SkyReels-V2-DF, some with tensors that fit. No torch."""

import re
from pathlib import Path

from flowcache.errors import Problem
from flowcache.families.hub import shown_name
from flowcache.families.layouts import DIFFUSERS_MARK, Layout, class_name, value
from flowcache.models.json_files import read_object

PIPELINES = (
    "SkyReelsV2DiffusionForcingPipeline",
    "SkyReelsV2DiffusionForcingImageToVideoPipeline",
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
)
TRANSFORMERS = {"diffusers": "SkyReelsV2Transformer3DModel", "official": "WanModel"}
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"  # what image-to-video models see pictures with
TAKE = "take a SkyReels-V2 checkpoint with DF (diffusion forcing) in its name"
OTHERS = re.compile(r"(?<![A-Z])(T2V|I2V|FLF2V|V2V|A2|VACE|WAN|HUNYUAN)(?![A-Z])")


def look_alike(layout: Layout) -> list[Problem]:
    """By class names. InputError where the file that says them can't be read."""
    index = layout.root / DIFFUSERS_MARK
    if layout.name == "diffusers" and index.is_file():
        found = read_object(index).get("_class_name")
        if found not in PIPELINES:
            return [_another(index, found, PIPELINES[0], f"a pipeline of class {found!r}" if found else "no pipeline")]
    found, own = class_name(layout.config), TRANSFORMERS[layout.name]
    if layout.name == "official" and found == TRANSFORMERS["diffusers"]:
        message = "is that of a transformer alone, as diffusers lays it out; give the folder above it"
        return [Problem(str(layout.config), "_class_name", message)]
    if found not in (None, own):
        return [_another(layout.config, found, own, f"a transformer of class {found!r}")]
    clip, config = layout.root / CLIP, layout.config
    pictures = value(config, "model_type") == "i2v" or value(config, "in_dim") != value(config, "out_dim")
    return [_of_pictures(clip, "")] if pictures and clip.exists() else []


def _of_pictures(clip: Path, why: str) -> Problem:
    return Problem(str(clip), "", f"belongs to an image-to-video model{why}; {TAKE}")


def _another(file: Path, found: object, own: str, what: str) -> Problem:
    return Problem(str(file), "_class_name", f"is that of {what}; accepted: {own}; {TAKE}")


def doubts(layout: Layout) -> list[Problem]:
    """Of the official layout, where nothing else tells that a model was not trained with diffusion forcing.

    Its name; and Wan's config knows no `inject_sample_info`, which SkyReels-V2's always says.
    """
    if layout.name != "official":
        return []
    found, name = [], shown_name(layout.root).upper()
    other = OTHERS.search(name)
    if other and not re.search(r"(?<![A-Z])DF(?![A-Z])", name):
        message = f"is named as a model of another kind ({other[1]}), which renders noise here if it is one; {TAKE}"
        found.append(Problem(str(layout.root), "", message))
    if (clip := layout.root / CLIP).exists():
        found.append(_of_pictures(clip, ", which renders noise here"))
    if class_name(layout.config) and value(layout.config, "inject_sample_info") is None:
        message = f"is missing, as in configs of Wan, whose models render noise here; {TAKE}"
        found.append(Problem(str(layout.config), "inject_sample_info", message))
    return found
