"""Tensors on disk: what lies where by the headers alone, and every fault of it. Nothing here unpickles code."""

import json
import pickle
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flowcache.errors import InputError, Problem
from flowcache.models.formats import Kind, expect, fault, opened, refuse_others
from flowcache.models.json_files import read_object
from flowcache.models.saved import look_at_pickles, look_at_zip

FLOATS = ("F64", "F32", "F16", "BF16")
MOST_SHARDS = 1000
PTH_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class Stored:
    """One tensor of a file. `dtype` as safetensors names it; `tensor`: there already (memory-mapped), of a .pth."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    tensor: Tensor | None = None


def in_folder(folder: Path, suffix: str = ".safetensors") -> list[Stored]:
    """Every tensor of a folder: the index's shards, or all files. InputError holds all faults.

    suffix: of the files, ".safetensors", or ".bin" for what torch.save wrote.
    """
    found: list[Stored] = []
    problems: list[Problem] = []
    for file in _files(folder, suffix):
        try:
            found += in_safetensors(file) if suffix == ".safetensors" else in_pth(file)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


def _files(folder: Path, suffix: str) -> list[Path]:
    indices = sorted(folder.glob(f"*{suffix}.index.json"))
    if len(indices) > 1:
        raise fault(folder, f"holds {len(indices)} indices of {suffix[1:]} shards; accepted: one")
    files = _indexed(indices[0]) if indices else sorted(folder.glob(f"*{suffix}"))
    if not files:
        raise fault(folder, f"holds no *{suffix} file")
    if len(files) > MOST_SHARDS:
        raise fault(indices[0] if indices else folder, f"{len(files):,} shards; accepted: {MOST_SHARDS:,} at most")
    missing = [file for file in files if not file.exists()]
    for file in () if indices else files:
        missing += _missing_shards(file)
    if missing:
        raise InputError([Problem(str(file), "", "is missing") for file in dict.fromkeys(missing)])
    return files


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
    outside = [name for name in found.values() if not isinstance(name, str) or Path(name).name != name]
    if outside:
        raise fault(index, f"names {outside[0]!r}; accepted: file names in the same folder", "weight_map")
    return [index.parent / name for name in sorted(set(found.values()))]


def in_safetensors(file: Path) -> list[Stored]:
    """By the header; InputError for another kind of file or one cut short."""
    expect(file, (Kind.SAFETENSORS,), "safetensors")
    try:
        with opened(file) as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        entries = [Stored(file, name, v["dtype"], tuple(v["shape"])) for name, v in sorted(header.items())]
        size, needed = file.stat().st_size, 8 + length + max((v["data_offsets"][1] for v in header.values()), default=0)
    except OSError as error:
        raise fault(file, f"can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise fault(file, f"is no safetensors file: its header is damaged ({type(error).__name__}: {error})") from None
    if size < needed:
        raise fault(file, f"is cut short: its header says {needed:,} bytes, the file has {size:,}; download it again")
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
