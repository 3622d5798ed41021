"""Checkpoints by name or path: what they are (`find`, no torch needed) and in memory (`load_model`)."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from flowcache.errors import InputError, Problem
from flowcache.families.layouts import Layout, layout_of, parts_of
from flowcache.families.magi import published as magi
from flowcache.families.magi.config_file import is_config
from flowcache.families.skyreels import published as skyreels
from flowcache.models.formats import opened
from flowcache.records import ModelSpec, Pipeline

if TYPE_CHECKING:
    import torch

    from flowcache.models.base import LoadedModel, VideoModel
    from flowcache.models.part import Part
    from flowcache.models.text import EmbeddingStore, EncodedTexts

BUNDLED = {"tiny-magi": "tiny/magi", "tiny-skyreels": "tiny/skyreels"}
SPEC_FILE = "flowcache.json"
SUFFIXES = (".json", ".safetensors", ".model", ".pth", ".bin", ".npz")
HASHED_WHOLE, SAMPLE, SAMPLES = 64 * 2**20, 2**20, 16  # bytes, bytes, how many


def bundled() -> list[str]:
    """Names of the models that the package brings along."""
    return sorted(BUNDLED)


def find(name: str) -> ModelSpec:
    """The spec of a bundled name or of a checkpoint; InputError says what would be accepted.

    A folder holds flowcache.json, or is a SkyReels-V2-DF checkpoint as published, in the official or the diffusers
    layout, or holds the config file of MAGI-1, which can also be named itself. Looks at no weights: `check` does.
    """
    folder = folder_of(name)
    path = folder / SPEC_FILE
    try:
        raw = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return _published(name, folder)
    except ValueError as error:
        raise InputError([Problem(str(path), "", f"is no JSON: {error}")]) from None
    return _spec(raw, folder, path)


def reference(name: str) -> str:
    """The name as another process on another node can use it: bundled ones stay, paths become absolute."""
    return name if name in BUNDLED else str(Path(name).absolute())


def folder_of(name: str) -> Path:
    if name in BUNDLED:
        return Path(str(resources.files("flowcache.models").joinpath(BUNDLED[name])))
    return Path(name)


def _published(name: str, path: Path) -> ModelSpec:
    layout = layout_of(path)
    if layout is None:
        kinds = (
            f"a folder that holds {SPEC_FILE} or a SkyReels-V2-DF checkpoint (official or diffusers layout), "
            "or the config file of a MAGI-1 checkpoint"
        )
        what = "is no model but a single file" if path.is_file() else "is no model"
        raise InputError([Problem("model", "", f"{name!r} {what}: give {', '.join(bundled())} or {kinds}")])
    if problems := layout.missing():
        raise InputError(problems)
    if is_config(layout.config):
        path, raw = layout.config, magi.settings(layout.config)
    else:
        raw = skyreels.settings(path, layout.transformer)
    return ModelSpec(**raw, path=str(path), digest=folder_digest(path), heads=_heads(layout))


def _spec(raw: dict, folder: Path, path: Path) -> ModelSpec:
    known = {field.name for field in fields(ModelSpec)} - {"path", "digest", "heads"}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise InputError([Problem(str(path), key, "is no known key") for key in unknown])
    raw = _frozen_values(raw)
    try:
        if "pipeline" in raw:
            raw["pipeline"] = Pipeline(**_frozen_values(raw["pipeline"]))
        return ModelSpec(**raw, path=str(folder), digest=folder_digest(folder), heads=_heads(parts_of(folder)))
    except TypeError as error:
        raise InputError([Problem(str(path), "", str(error))]) from None


def _frozen_values(raw: dict) -> dict:
    return {key: _frozen(value) if isinstance(value, list) else value for key, value in raw.items()}


def _frozen(values: list) -> tuple:
    return tuple(_frozen(value) if isinstance(value, list) else value for value in values)


def _heads(layout: Layout) -> int:
    """Heads with keys and values of their own by the transformer's config, in any published layout."""
    try:
        raw = json.loads(layout.config.read_text())
        raw = raw.get("model_config", raw)
        return raw.get("num_query_groups") or raw.get("num_attention_heads") or raw["num_heads"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError([Problem(str(layout.config), "", f"is no transformer config: {error!r}")]) from None


@cache
def folder_digest(path: Path) -> str:
    """sha256 over the names and contents of a checkpoint's files (its card left out): a folder, or a config file.

    Of a file above 64 MiB only the size, both ends and samples between are read, so that a checkpoint of 30 GB is
    known within a second: its ends hold the tensors' names and shapes (safetensors) or checksums (.pth), and another
    training changes every weight. It is no protection against somebody who changes single weights on purpose.
    """
    digest = hashlib.sha256()
    for root in [path] if path.is_dir() else parts_of(path).roots:
        inside = (file for file in root.rglob("*") if file.suffix in SUFFIXES and not file.is_dir())
        for file in sorted(inside) if root.is_dir() else [root]:
            digest.update(file.relative_to(root if root.is_dir() else root.parent).as_posix().encode() + b"\0")
            digest.update(_file_digest(file))
    return digest.hexdigest()


def _file_digest(file: Path) -> bytes:
    with opened(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= HASHED_WHOLE:
            return hashlib.file_digest(stream, "sha256").digest()
        digest = hashlib.sha256(size.to_bytes(8, "little"))
        for start in (0, *(size * part // SAMPLES for part in range(1, SAMPLES)), size - SAMPLE):
            stream.seek(start)
            digest.update(stream.read(SAMPLE))
        return digest.digest()


def load_model(
    name: str,
    device: str = "cpu",
    dtype: str = "auto",
    texts: Iterable[str] = (),
    tile: int | None = None,
    embeddings: "EmbeddingStore | None" = None,
    load: "Callable[[Part, str, torch.dtype, Callable[[str], bool]], VideoModel] | None" = None,
) -> "LoadedModel":
    """Weights, text encoder and codec of `find(name)`, ready on `device`.

    dtype: of transformer and text encoder, "bf16" or "fp32"; "auto": bf16 on a GPU, else fp32. MAGI-1's text encoder
    is always fp32.
    texts: encoded first, so that the text encoder has left the device before the transformer comes.
    tile: see `wan_vae.WanCodec` and `magi.vae_codec.MagiCodec`. shelf: see `text.StoredTexts`. load: what loads the
    transformer; None: `Part.load`, whole.
    InputError names each damaged file and tensor.
    """
    from flowcache.families.base import FAMILIES
    from flowcache.families.codecs import load_codec
    from flowcache.models.base import LoadedModel
    from flowcache.models.part import Part
    from flowcache.models.text import StoredTexts

    spec = find(name)
    layout, family = parts_of(Path(spec.path)), FAMILIES[spec.family]
    encoded = load_texts(name, device, dtype, keep=device == "cpu")
    text = family.text(layout, family.config(layout), StoredTexts(embeddings, encoded) if embeddings else encoded)
    encoded.prepare(texts)
    load = load or Part.load
    transformer = load(family.part(layout), device, precision(dtype, device), family.keep_float32)
    return LoadedModel(spec, transformer, load_codec(layout.vae, device, tile), text)


def load_texts(name: str, device: str = "cpu", dtype: str = "auto", keep: bool = False) -> "EncodedTexts":
    """The text encoder of `find(name)` alone, loaded when the first text comes; `keep`: see EncodedTexts."""
    from flowcache.families.base import FAMILIES
    from flowcache.models.text import EncodedTexts, load_text_encoder

    spec = find(name)
    layout, family = parts_of(Path(spec.path)), FAMILIES[spec.family]
    length = family.config(layout).text_len
    encoder = partial(
        load_text_encoder, layout.text_encoder, layout.tokenizer, length, device,
        family.text_dtype or precision(dtype, device), family.clean,
    )  # fmt: skip
    return EncodedTexts(encoder, length, keep)


def precision(dtype: str, device: str) -> "torch.dtype":
    """What "bf16", "fp32" or "auto" means on a device."""
    import torch

    if dtype == "auto":
        dtype = "bf16" if device.startswith("cuda") else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
