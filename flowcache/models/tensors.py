"""Tensors on disk: what lies where by the headers alone, and every fault of it. Nothing here unpickles code."""

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flowcache.errors import InputError, Problem

FLOATS = ("F64", "F32", "F16", "BF16")
PTH_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
HEADER_LIMIT = 100_000_000  # bytes, as in the safetensors format


@dataclass(frozen=True)
class Stored:
    """One tensor of a file. `dtype` as safetensors names it; `tensor`: there already (memory-mapped), of a .pth."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    tensor: Tensor | None = None


def fault(file: Path, message: str, field: str = "") -> InputError:
    return InputError([Problem(str(file), field, message)])


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
    missing = [Problem(str(file), "", "is missing") for file in files if not file.is_file()]
    for file in () if indices else files:
        if part := re.search(r"-(\d+)-of-(\d+)$", file.stem):
            names = (
                f"{file.stem[: part.start()]}-{n:0{len(part[1])}}-of-{part[2]}" for n in range(1, int(part[2]) + 1)
            )
            missing += [Problem(str(folder / f"{name}{suffix}"), "", "is missing") for name in names
                        if not (folder / f"{name}{suffix}").is_file()]  # fmt: skip
    if missing:
        raise InputError(list(dict.fromkeys(missing)))
    return files


def _indexed(index: Path) -> list[Path]:
    """The shards that an index names, which must lie beside it."""
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise fault(index, f"is no index of shards: {error!r}") from None
    outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if outside:
        raise fault(index, f"names {outside[0]!r}; accepted: file names in the same folder", "weight_map")
    return [index.parent / name for name in sorted(names)]


def in_safetensors(file: Path) -> list[Stored]:
    """By the header; InputError for another kind of file or one cut short."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
                raise fault(file, "is a pickle (torch.save), which can hold code; accepted: safetensors")
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(size - 8, HEADER_LIMIT):
                raise fault(file, f"is no safetensors file, or one cut short at {size:,} bytes")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        entries = [Stored(file, name, v["dtype"], tuple(v["shape"])) for name, v in sorted(header.items())]
        needed = 8 + length + max((v["data_offsets"][1] for v in header.values()), default=0)
    except OSError as error:
        raise fault(file, f"can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise fault(file, f"is no safetensors file: {error!r}") from None
    if size < needed:
        raise fault(file, f"is cut short: {size:,} of {needed:,} bytes")
    try:
        with safe_open(file, "pt"):  # its reader looks for overlaps, gaps and sizes that don't fit
            return entries
    except SafetensorError as error:
        raise fault(file, f"is no safetensors file: {error}") from None


def in_pth(file: Path) -> list[Stored]:
    """The tensors of a state dict that torch.save wrote, memory-mapped; a pickle with code is refused, not run."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except FileNotFoundError:
        raise fault(file, "is missing") from None
    except pickle.UnpicklingError as error:
        why = str(error).splitlines()[0]
        raise fault(file, f"holds more than tensors, such as code; it was not run ({why})") from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise fault(file, f"can't be read, perhaps it is cut short: {error}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise fault(file, "is no state dict; accepted: names and tensors")
    return [Stored(file, n, PTH_DTYPES.get(t.dtype, str(t.dtype)), tuple(t.shape), t) for n, t in state.items()]


def read(
    stored: list[Stored], device: str | torch.device, rows: Callable[[Stored], slice | None] = lambda entry: None
) -> Iterator[tuple[Stored, Tensor]]:
    """Each tensor in turn, straight from the memory-mapped file to `device`, in its stored dtype.

    rows: of its first dimension; None: all. Nothing else is touched. On a CPU the tensors are the file's pages, which
    all processes share.
    """
    for file, entries in groupby(stored, lambda entry: entry.file):
        held = list(entries)
        if held[0].tensor is not None:
            yield from ((entry, entry.tensor[rows(entry) or ...].to(device)) for entry in held)
            continue
        with safe_open(file, "pt", device=str(device)) as reader:
            for entry in held:
                part = rows(entry)
                yield entry, reader.get_slice(entry.name)[part] if part else reader.get_tensor(entry.name)
