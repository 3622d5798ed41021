"""Tensors on disk: what lies where by the headers alone, and every fault of it. Nothing here unpickles code."""

import json
import os
import pickle
import re
import struct
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flowcache.errors import InputError, Problem
from flowcache.models.formats import Kind, expect, fault, opened, refuse_others
from flowcache.models.headers import read_header
from flowcache.models.json_files import read_object
from flowcache.models.saved import look_at_pickles, look_at_zip
from flowcache.models.stored import TAKE, Stored, joined

MOST_SHARDS, LONGEST = 1000, 256  # and bytes of a file name
OTHERS = (".bin", ".pth", ".pt", ".ckpt", ".gguf", ".zst", ".SAFETENSORS")  # what there may be instead
PTH_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


def in_folder(folder: Path, suffix: str = ".safetensors") -> list[Stored]:
    """Every tensor of a folder: the index's shards, or all files. InputError holds all faults.

    suffix: of the files, ".safetensors", or ".bin" for what torch.save wrote.
    """
    _refuse_methods(folder / "config.json")
    found: list[Stored] = []
    problems: list[Problem] = []
    for file in _files(folder, suffix):
        try:
            found += in_safetensors(file) if suffix == ".safetensors" else in_pth(file)
        except InputError as error:
            problems += error.problems
    if problems := problems or _repeated(found):
        raise InputError(problems)
    return joined(found)


def _repeated(stored: list[Stored]) -> list[Problem]:
    """Files with tensors that another one has: whose would be taken?"""
    files: dict[str, Path] = {}
    twice: dict[tuple[Path, Path], str] = {}
    for entry in stored:
        first = files.setdefault(entry.name, entry.file)
        if first != entry.file:
            twice.setdefault((first, entry.file), entry.name)
    return [Problem(str(file), name, f"is there twice: also in {first.name}; keep one of the files")
            for (first, file), name in twice.items()]  # fmt: skip


def _refuse_methods(config: Path) -> None:
    """InputError for weights that a library packed in a way of its own, as diffusers and transformers note it."""
    try:
        with opened(config) as stream:
            said = json.load(stream)["quantization_config"]
        method = str(said["quant_method"])[:40] if isinstance(said, dict) and "quant_method" in said else "a library"
    except (InputError, ValueError, LookupError, TypeError, RecursionError):
        return  # whoever needs the config says what is wrong with it
    if said:
        raise fault(config, f"says that {method} packed the weights, which is not read; {TAKE}", "quantization_config")


def _files(folder: Path, suffix: str) -> list[Path]:
    indices = _named(folder, f"{suffix}.index.json")
    if len(indices) > 1:
        raise fault(folder, f"holds {len(indices)} indices of {suffix[1:]} shards; accepted: one")
    files = _indexed(indices[0]) if indices else _named(folder, suffix)
    if not files:
        others = [file.name for end in OTHERS for file in _named(folder, end)][:1]
        raise fault(folder, f"holds no *{suffix} file{f', but {others[0]}' if others else ''}")
    if len(files) > MOST_SHARDS:
        raise fault(indices[0] if indices else folder, f"{len(files):,} shards; accepted: {MOST_SHARDS:,} at most")
    missing = [file for file in files if not file.exists()]
    for file in () if indices else files:
        missing += _missing_shards(file)
    if missing:
        raise InputError([Problem(str(file), "", "is missing") for file in dict.fromkeys(missing)])
    return files


def _named(folder: Path, end: str) -> list[Path]:
    """Its files whose names end so, but for hidden ones, such as those that macOS leaves beside each (._NAME)."""
    return sorted(file for file in folder.glob(f"*{end}") if not file.name.startswith("."))


def _missing_shards(file: Path) -> list[Path]:
    """Those that the name of one says there are."""
    part = re.search(r"-([0-9]+)-of-([0-9]+)$", file.stem)
    if not part:
        return []
    if int(part[2]) > MOST_SHARDS:
        raise fault(file, f"is by its name one of {part[2]} shards; accepted: {MOST_SHARDS:,} at most")
    stem, width = file.stem[: part.start()], len(part[1])
    names = (f"{stem}-{n:0{width}}-of-{part[2]}{file.suffix}" for n in range(1, int(part[2]) + 1))
    return [path for name in names if not (path := file.parent / name).exists()]


def _indexed(index: Path) -> list[Path]:
    """The shards that an index names, which must lie beside it."""
    expect(index, (Kind.TEXT,), "JSON")
    found = read_object(index, "index of shards").get("weight_map")
    if not isinstance(found, dict):
        raise fault(index, "is no index of shards: it has no object weight_map", "weight_map")
    end = index.name.removesuffix(".index.json")
    end = end[end.rindex(".") :]
    outside = [name for name in found.values() if not _beside(name, end)]
    if outside:
        given = f"names {str(outside[0])[:80]!r}"
        raise fault(index, f"{given}; accepted: names of *{end} files in the same folder", "weight_map")
    return [index.parent / name for name in sorted(set(found.values()))]


def _beside(name: object, end: str) -> bool:
    """Whether it can be the name of a shard."""
    if not isinstance(name, str) or Path(name).name != name or not name.isprintable():
        return False
    return name.endswith(end) and len(os.fsencode(name)) < LONGEST


def in_safetensors(file: Path) -> list[Stored]:
    """By the header; InputError for another kind of file or one cut short."""
    header = read_header(file)
    entries = [Stored(file, name, entry["dtype"], entry["shape"]) for name, entry in header.items()]
    refuse_others(file, header)
    try:
        with safe_open(file, "pt"):  # its reader looks for overlaps, gaps and sizes that don't fit
            return entries
    except SafetensorError as error:
        raise fault(file, f"is no safetensors file: {error}") from None


def in_pth(file: Path) -> list[Stored]:
    """The tensors of a state dict that torch.save wrote, memory-mapped; a pickle with code is refused, not run."""
    kind = expect(file, (Kind.ZIP, Kind.LEGACY), "what torch.save writes")
    (look_at_zip if kind is Kind.ZIP else look_at_pickles)(file)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=kind is Kind.ZIP)
    except OSError as error:
        raise fault(file, f"can't be read: {error.strerror}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
            AssertionError, struct.error) as error:  # fmt: skip
        # torch's own words are left out: they advise to run the code
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise fault(file, f"holds more than tensors, such as code; it was not run ({code[1][:80]!r})") from None
        why = f"perhaps it is damaged or cut short; no code was run ({type(error).__name__})"
        raise fault(file, f"can't be read as tensors alone, {why}") from None
    _look_at_state(file, state)
    return [Stored(file, n, PTH_DTYPES.get(t.dtype, str(t.dtype)), tuple(t.shape), t) for n, t in state.items()]


def _look_at_state(file: Path, state: object) -> None:
    tensors = state if isinstance(state, dict) else {}
    if not tensors or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in tensors.items()):
        inner = [str(name) for name, value in tensors.items() if isinstance(value, dict) and _has_tensor(value)]
        what = f"is a training checkpoint, with the tensors under {inner[0]!r}" if inner else "is no state dict"
        raise fault(file, f"{what}; accepted: names and tensors")
    refuse_others(file, tensors)


def _has_tensor(state: dict) -> bool:
    return any(isinstance(value, Tensor) for value in state.values())


def read(
    stored: list[Stored], device: str | torch.device, rows: Callable[[Stored], slice | None] = lambda entry: None
) -> Iterator[tuple[Stored, Tensor]]:
    """Each tensor in turn, straight from the memory-mapped file to `device`, in its stored dtype.

    rows: of its first dimension; None: all. Nothing else is touched. On a CPU the tensors are the file's pages, which
    all processes share.
    """
    for file, group in groupby(stored, lambda entry: entry.file):
        entries = list(group)
        loaded = [(entry, entry.tensor) for entry in entries if entry.tensor is not None]
        if loaded:
            yield from ((entry, tensor[rows(entry) or ...].to(device)) for entry, tensor in loaded)
            continue
        with safe_open(file, "pt", device=str(device)) as reader:
            for entry in entries:
                part = rows(entry)
                yield entry, reader.get_slice(entry.name)[part] if part else reader.get_tensor(entry.name)
