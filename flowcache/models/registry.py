"""Checkpoints by name or path: what they are (`find`, no torch needed) and in memory (`load_model`)."""

import hashlib
import json
from dataclasses import fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from flowcache.errors import InputError, Problem
from flowcache.records import ModelSpec

if TYPE_CHECKING:
    from flowcache.models.base import LoadedModel

BUNDLED = {"tiny-skyreels": "tiny/skyreels"}
SPEC_FILE = "flowcache.json"


def bundled() -> list[str]:
    """Names of the models that the package brings along."""
    return sorted(BUNDLED)


def find(name: str) -> ModelSpec:
    """The spec of a bundled name or of a checkpoint folder; InputError says what would be accepted."""
    if name in BUNDLED:
        folder = Path(str(resources.files("flowcache.models").joinpath(BUNDLED[name])))
    else:
        folder = Path(name)
    path = folder / SPEC_FILE
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        accepted = f"{name!r} is no model: give {', '.join(bundled())} or a folder that holds {SPEC_FILE}"
        raise InputError([Problem("model", "", accepted)]) from None
    except ValueError as error:
        raise InputError([Problem(str(path), "", f"is no JSON: {error}")]) from None
    return _spec(raw, folder, path)


def _spec(raw: dict, folder: Path, path: Path) -> ModelSpec:
    known = {field.name for field in fields(ModelSpec)} - {"path", "digest", "heads"}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise InputError([Problem(str(path), key, "is no known key") for key in unknown])
    raw = {key: _frozen(value) if isinstance(value, list) else value for key, value in raw.items()}
    try:
        return ModelSpec(**raw, path=str(folder), digest=folder_digest(folder), heads=_heads(folder))
    except TypeError as error:
        raise InputError([Problem(str(path), "", str(error))]) from None


def _frozen(values: list) -> tuple:
    return tuple(_frozen(value) if isinstance(value, list) else value for value in values)


def _heads(folder: Path) -> int:
    """Attention heads by the transformer's config, in either published layout."""
    path = folder / "transformer" / "config.json"
    try:
        raw = json.loads(path.read_text())
        return raw.get("num_attention_heads") or raw["num_heads"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError([Problem(str(path), "", f"is no transformer config: {error!r}")]) from None


@cache
def folder_digest(folder: Path) -> str:
    """sha256 over the names and contents of a checkpoint's files (its card left out)."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".model")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def load_model(name: str, device: str = "cpu", dtype: str = "float32") -> "LoadedModel":
    """Weights, text encoder and codec of `find(name)`, ready on `device`."""
    import torch

    from flowcache.models.base import LoadedModel
    from flowcache.models.codec import load_codec
    from flowcache.models.skyreels.weights import load_transformer
    from flowcache.models.text import load_text_encoder

    spec = find(name)
    folder = Path(spec.path)
    transformer = load_transformer(folder / "transformer", device, getattr(torch, dtype))
    text = load_text_encoder(folder / "text_encoder", folder / "tokenizer", transformer.config.text_len)
    return LoadedModel(spec, transformer, load_codec(folder / "vae"), text)
