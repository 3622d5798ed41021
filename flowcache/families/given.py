"""What is given as a model and is no checkpoint: told as what it is. No torch."""

import os
from functools import partial
from pathlib import Path

from flowcache.errors import problems_of
from flowcache.families.hub import CACHED, hub_id
from flowcache.models.formats import Kind, expect, refuse_others
from flowcache.models.headers import read_header

WEIGHTS = (Kind.SAFETENSORS, Kind.ZIP, Kind.LEGACY)
ADAPTER_FILES = ("adapter_config.json", "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
LORA = "holds a LoRA or another adapter alone, no checkpoint; accepted: the weights of a whole model"


def told(name: str, path: Path) -> str | None:
    """A sentence without its subject, where more can be said than that it is no model.

    name: what was given; path: what it stands for.
    """
    if not os.path.lexists(path):
        return _absent(name)
    if not path.exists():
        return "is a link to nothing"
    return _folder(path) if path.is_dir() else _file(path)


def _absent(name: str) -> str | None:
    repository = hub_id(name)
    if repository and (":/" in name or not Path(repository.partition("/")[0]).is_dir()):
        folder = repository.partition("/")[2]
        return (f"is no path here, and nothing is downloaded; if it is meant on the Hugging Face Hub, run "
                f"hf download {repository} --local-dir {folder}, and give {folder}")  # fmt: skip
    if ":/" in name:  # a path has one slash of them
        return "is a URL; accepted: the path of a folder on this machine"
    return None


def _file(path: Path) -> str | None:
    problems = problems_of(partial(expect, path, WEIGHTS, "a folder"))
    if not problems and path.suffix == ".safetensors":
        problems = problems_of(lambda: refuse_others(path, read_header(path)))
    return problems[0].message if problems else None


def _folder(path: Path) -> str | None:
    names = sorted(each.name for each in path.iterdir())
    cached = [each.removeprefix(CACHED) for each in names if each.startswith(CACHED)]
    if not names:
        return "is an empty folder"
    if cached:
        return f"is a cache of Hugging Face; give one of its models: {', '.join(CACHED + each for each in cached[:5])}"
    if any(each in ADAPTER_FILES for each in names):
        return LORA
    weights = [path / each for each in names if each.endswith((".safetensors", ".gguf"))]
    faults = [fault for file in weights if (fault := _file(file))]
    if faults and len(faults) == len(weights):
        return f"holds {weights[0].name}, which {faults[0]}"
    return f"holds weights ({weights[0].name}) and no config.json that says of which model" if weights else None
