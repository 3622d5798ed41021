"""Checkpoints by name or path: what they are (`find`, no torch needed) and in memory (`load_model`)."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowcache.errors import InputError, Problem
from flowcache.families import calibrations
from flowcache.families.base import Family
from flowcache.families.given import told
from flowcache.families.hub import snapshot
from flowcache.families.known import accepted, answers, family, is_known, left_out, recognise
from flowcache.families.layouts import Layout
from flowcache.families.spec_file import faults
from flowcache.models.formats import opened, readable
from flowcache.models.json_files import read_object
from flowcache.records import ModelSpec, Weights

if TYPE_CHECKING:
    import torch

    from flowcache.models.base import LoadedModel, VideoModel
    from flowcache.models.part import Part
    from flowcache.models.text import EmbeddingStore, EncodedTexts

BUNDLED = {"tiny-magi": "tiny/magi", "tiny-skyreels": "tiny/skyreels"}
SPEC_FILE = "flowcache.json"
SUFFIXES = (".json", ".safetensors", ".model", ".pth", ".bin", ".npz")
SURROGATES = re.compile("[\ud800-\udfff]")  # bytes of a path that are not UTF-8
HASHED_WHOLE, SAMPLE, SAMPLES = 64 * 2**20, 2**20, 16  # bytes, bytes, how many


def bundled() -> list[str]:
    """Names of the models that the package brings along."""
    return sorted(BUNDLED)


def find(name: str) -> ModelSpec:
    """The spec of a bundled name or of a checkpoint; InputError says what would be accepted.

    A folder holds flowcache.json, or is a checkpoint that its family knows as published (SkyReels-V2-DF in the official
    or the diffusers layout), or holds the config file of MAGI-1, which can also be named itself; or it is one of a
    Hugging Face cache (`hub.snapshot`). Or it holds a calibration alone, which names one of these. Looks at no weights:
    `check` does.
    """
    folder = folder_of(name)
    with readable(folder):
        model = _calibrated(folder)
        if model is not None:
            return _by(model, folder)
        spec = _checkpoint(name, folder)
        return replace(spec, calibrations=_calibrations(Path(spec.path)))


def checkpoint_of(path: Path) -> Path:
    """The path, or where the checkpoint lies that the calibration names which alone is there. InputError."""
    model = _calibrated(path)
    return path if model is None else folder_of(model)


def locate(path: Path) -> tuple[Family, Layout] | None:
    """What lies there, by flowcache.json, else by the look of it; None: no checkpoint. InputError."""
    raw = _written(path)
    if raw is None:
        return recognise(path)
    found = _family(raw, path)
    return found, found.layout(path)


def reference(name: str) -> str:
    """The name as another process on another node can use it: bundled ones stay, paths become absolute."""
    return name if name in BUNDLED else str(Path(os.path.expanduser(name)).absolute())


def folder_of(name: str) -> Path:
    """InputError where nobody can look there."""
    if name in BUNDLED:
        return Path(str(resources.files("flowcache.models").joinpath(BUNDLED[name])))
    path = Path(os.path.expanduser(name))
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise InputError([Problem("model", "", f"{name[:80]!r} is no path: no file has such a name")]) from None
    if "\0" in name:
        raise InputError([Problem("model", "", f"{name!r} is no path: it holds a null character")])
    if SURROGATES.search(str(path.absolute())):
        message = f"{name[:80]!r} can't be read by all that reads weights: the path is not UTF-8; rename it"
        raise InputError([Problem("model", "", message)])
    try:
        path.exists()  # False is no fault yet
        return snapshot(path)
    except OSError as error:  # such as a name that is too long
        raise InputError([Problem("model", "", f"{name[:80]!r} can't be read: {error.strerror}")]) from None


def _calibrated(folder: Path) -> str | None:
    """The checkpoint that a calibration names which is no part of one; None: there is none. InputError."""
    if not (folder / calibrations.FILE).is_file() or (folder / SPEC_FILE).exists() or recognise(folder):
        return None
    return calibrations.model_of(folder)


def _by(model: str, folder: Path) -> ModelSpec:
    """That checkpoint with the calibration of the folder, in place of its own. InputError."""
    try:
        spec = _checkpoint(model, folder_of(model))
    except InputError as error:
        said = (each.message if each.file == "model" else str(each) for each in error.problems)
        raise InputError([Problem(str(folder / calibrations.FILE), "model", each) for each in said]) from None
    plain = folder_digest(Path(spec.path), without=calibrations.FILE)
    made = _file_digest(folder / calibrations.FILE).hex()  # what else lies there is no part of it
    digest = hashlib.sha256(f"{plain} {made}".encode()).hexdigest()
    return replace(spec, digest=digest, calibrations=calibrations.read(folder, plain))


def _checkpoint(name: str, folder: Path) -> ModelSpec:
    """Without its calibrations. InputError."""
    raw = _written(folder)
    return _published(name, folder) if raw is None else _spec(raw, folder)


def _written(folder: Path) -> dict[str, Any] | None:
    """What flowcache.json says; None: there is none. InputError."""
    path = folder / SPEC_FILE
    if not os.path.exists(path):
        return None
    try:
        raw = read_object(path)
        _frozen(raw)  # so deep that this fails, nothing could be said of it either
    except RecursionError as error:
        raise InputError([Problem(str(path), "", f"is no JSON object: {error}")]) from None
    return raw


def _published(name: str, path: Path) -> ModelSpec:
    found = recognise(path)
    if found is None and (what := told(name, path)):
        raise InputError([Problem("model", "", f"{name!r} {what}")])
    if found is None:
        as_published = ", or ".join(accepts for _, accepts in answers(lambda each: each.accepts) if accepts)
        kinds = f"a folder that holds {SPEC_FILE} or {as_published}"
        file = "is no model but a single file" if path.is_file() else "is no model"
        what = file if path.exists() else "does not exist"
        raise InputError([Problem("model", "", f"{name!r} {what}: give {', '.join(bundled())} or {kinds}{left_out()}")])
    owner, layout = found
    if problems := owner.look_alike(layout) or layout.missing():
        raise InputError(problems)
    raw, root = owner.published(layout), layout.root
    return ModelSpec(**raw, path=str(root), digest=folder_digest(root), heads=owner.heads(layout))


def _spec(raw: dict[str, Any], folder: Path) -> ModelSpec:
    path = folder / SPEC_FILE
    known = {field.name for field in fields(ModelSpec)} - {"path", "digest", "heads", "calibrations"}
    unknown = sorted(set(raw) - known)
    if unknown:
        named = (key if key.isprintable() and len(key) <= 50 else repr(key[:50]) for key in unknown[:100])
        raise InputError([Problem(str(path), key, "is no known key") for key in named])
    owner, raw = _family(raw, folder), _frozen(raw)
    if problems := [Problem(str(path), key, message) for key, message in faults(raw)]:
        raise InputError(problems)
    try:
        raw["pipeline"] = owner.pipeline(raw.get("pipeline"))
    except TypeError as error:
        raise InputError([Problem(str(path), "pipeline", str(error))]) from None
    heads = owner.heads(owner.layout(folder))
    try:
        return ModelSpec(**raw, path=str(folder), digest=folder_digest(folder), heads=heads)
    except TypeError as error:
        raise InputError([Problem(str(path), "", str(error))]) from None


def _family(raw: dict[str, Any], folder: Path) -> Family:
    name = raw.get("family")
    if isinstance(name, str) and is_known(name):
        return family(name)
    given = f"got {name!r}" if "family" in raw else "is missing"
    raise InputError([Problem(str(folder / SPEC_FILE), "family", f"{given}; {accepted()}")])


def _frozen(value: Any) -> Any:
    """The same with tuples for lists."""
    if isinstance(value, dict):
        return {key: _frozen(each) for key, each in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _calibrations(root: Path) -> tuple[Any, ...]:
    """InputError where they are damaged or another checkpoint's."""
    if not (root / calibrations.FILE).is_file():
        return ()
    return calibrations.read(root, folder_digest(root, without=calibrations.FILE))


@cache
def folder_digest(path: Path, without: str = "") -> str:
    """sha256 over the names and contents of a checkpoint's files (its card left out): a folder, or a config file.

    without: the name of a file that does not count.

    Of a file above 64 MiB only the size, both ends and samples between are read, so that a checkpoint of 30 GB is
    known within a second: its ends hold the tensors' names and shapes (safetensors) or checksums (.pth), and another
    training changes every weight. It is no protection against somebody who changes single weights on purpose.
    """
    digest = hashlib.sha256()
    known = None if path.is_dir() else recognise(path)
    for root in known[1].roots if known else [path]:
        for file in sorted(filter(_counts, root.rglob("*"))) if root.is_dir() else [root]:
            if file.name == without:
                continue
            digest.update(file.relative_to(root if root.is_dir() else root.parent).as_posix().encode() + b"\0")
            digest.update(_file_digest(file))
    return digest.hexdigest()


def _counts(file: Path) -> bool:
    """Whether a file can be a part of a checkpoint; hidden ones are none."""
    return file.suffix in SUFFIXES and not file.name.startswith(".") and not file.is_dir()


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
    vae_dtype: str = "auto",
    embeddings: "EmbeddingStore | None" = None,
    load: "Callable[[Part, str, torch.dtype, Callable[[str], bool]], VideoModel] | None" = None,
    weights: Weights = "auto",
) -> "LoadedModel":
    """Weights, text encoder and codec of `find(name)`, ready on `device`.

    dtype: of transformer and text encoder, "bf16" or "fp32"; "auto": bf16 on a GPU, else fp32. MAGI-1's text encoder
    is always fp32.
    texts: encoded first, so that the text encoder has left the device before the transformer comes.
    tile, vae_dtype: see `codecs.load_codec`. embeddings: see `text.StoredTexts`. load: what loads the transformer;
    None: `Part.load`, whole, with `weights` as `records.Weights` says.
    InputError names each damaged file and tensor.
    """
    from flowcache.families.codecs import load_codec
    from flowcache.models.base import LoadedModel
    from flowcache.models.text import StoredTexts

    spec = find(name)
    owner, layout = _parts(spec)
    encoded = load_texts(name, device, dtype, keep=device == "cpu")
    text = owner.text(layout, owner.config(layout), StoredTexts(embeddings, encoded) if embeddings else encoded)
    encoded.prepare(texts)
    part, how = owner.part(layout), (device, precision(dtype, device), owner.keep_float32)
    transformer = part.load(*how, weights) if load is None else load(part, *how)
    return LoadedModel(spec, transformer, load_codec(layout.vae, device, tile, vae_dtype), text)


def load_texts(name: str, device: str = "cpu", dtype: str = "auto", keep: bool = False) -> "EncodedTexts":
    """The text encoder of `find(name)` alone, loaded when the first text comes; `keep`: see EncodedTexts."""
    from flowcache.models.text import EncodedTexts

    owner, layout = _parts(find(name))
    config = owner.config(layout)
    encoder = partial(owner.text_encoder, layout, config, device, precision(dtype, device))
    return EncodedTexts(encoder, config.text_len, keep)


def _parts(spec: ModelSpec) -> tuple[Family, Layout]:
    owner = family(spec.family)
    return owner, owner.layout(Path(spec.path))


def precision(dtype: str, device: str) -> "torch.dtype":
    """What "bf16", "fp32" or "auto" means on a device."""
    import torch

    if dtype == "auto":
        dtype = "bf16" if device.startswith("cuda") else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
