"""What a file of a checkpoint is, by its structure and not by its name; and what is said of a wrong one. No torch."""

import codecs
import os
import pickletools
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import Enum
from io import BufferedReader
from pathlib import Path

from flowcache.errors import InputError, Problem, masked

HEAD = 4096  # bytes that `recognise` needs
HEADER_LIMIT = 100_000_000  # bytes, as in the safetensors format
# The first thing in a file of torch.save before PyTorch 1.6, after the pickle's protocol: its magic number.
LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
COMPRESSED = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z"}
OPCODES = {opcode.code for opcode in pickletools.opcodes}
CONTROLS = bytes({*range(32), 127} - {*b"\t\n\f\r"})
ADAPTER = re.compile(r"lora|hada_w|lokr_w|\.diff(_b)?$", re.IGNORECASE)
WHOLE = ("model.diffusion_model.", "diffusion_model.", "first_stage_model.", "cond_stage_model.")
NO_FILES = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


class Kind(Enum):
    """`value`: what is said of such a file where another kind is needed."""

    SAFETENSORS = "is a safetensors file; accepted: {accepted}"
    CUT = "is a safetensors file cut short: {rest:,} of the {header:,} bytes of its header are there; download it again"
    ZIP = "is a zip archive, as torch.save puts around a pickle, which can hold code; accepted: {accepted}"
    LEGACY = "is a pickle (torch.save before PyTorch 1.6), which can hold code; accepted: {accepted}"
    PICKLE = "is a pickle that torch.save did not write, which can hold code; it was not run; accepted: {accepted}"
    LFS = "is a Git LFS pointer and not the file that it stands for; run git lfs pull in its folder"
    HTML = "is an HTML page: a download that failed or needs a login; download it again"
    GGUF = "is a GGUF file (llama.cpp), which is not supported; take the model's safetensors"
    COMPRESSED = "is compressed ({method}); unpack it first"
    TEXT = "is text that begins with {quote}, perhaps a server's answer; accepted: {accepted}"
    ZEROS = "begins with nothing but zeros: a download that did not finish; download it again"
    EMPTY = "is empty: a download that failed; download it again"
    UNKNOWN = "is of no known format, or damaged; accepted: {accepted}"


def recognise(head: bytes, size: int) -> Kind:
    """head: the first `HEAD` bytes of a file of `size` bytes."""
    if not size:
        return Kind.EMPTY
    if not any(head):
        return Kind.ZEROS
    # Any byte can stand first in a safetensors file, so this comes before all marks.
    if len(head) >= 8 and _header(head) <= HEADER_LIMIT and head[8:9] in (b"{", b""):
        return Kind.SAFETENSORS if 8 + _header(head) <= size else Kind.CUT
    if head.startswith(b"PK\x03\x04"):
        return Kind.ZIP
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5") and head[2:3].decode("latin-1") in OPCODES:
        return Kind.LEGACY if head[2:].startswith(LEGACY) else Kind.PICKLE
    if head.startswith(b"GGUF"):
        return Kind.GGUF
    if _method(head):
        return Kind.COMPRESSED
    return _text_kind(head) if _is_text(head) else Kind.UNKNOWN


def _method(head: bytes) -> str:
    return next((name for mark, name in COMPRESSED.items() if head.startswith(mark)), "")


def _header(head: bytes) -> int:
    return int.from_bytes(head[:8], "little")


def _is_text(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return head.translate(None, CONTROLS) == head


def _text_kind(head: bytes) -> Kind:
    if head.startswith(b"version http") and b"\noid sha256:" in head:
        return Kind.LFS
    start = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return Kind.HTML if start[:1] == b"<" and (b"<html" in start or b"<!doctype html" in start) else Kind.TEXT


def expect(file: Path, kinds: Collection[Kind], accepted: str) -> Kind:
    """The file's kind, one of `kinds`; InputError says what it is else. accepted: these kinds in words."""
    with opened(file) as stream:
        head, size = stream.read(HEAD), os.fstat(stream.fileno()).st_size
    kind = recognise(head, size)
    if kind not in kinds:
        raise fault(file, said(kind, head, size, accepted))
    return kind


def said(kind: Kind, head: bytes, size: int, accepted: str) -> str:
    """Of a file of that kind, where `accepted` is needed."""
    quote = masked(head.decode(errors="replace").strip().split("\n")[0])[:40]
    numbers = {"header": _header(head), "rest": size - 8}
    return kind.value.format(accepted=accepted, quote=repr(quote), method=_method(head), **numbers)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What the system says inside (no permission, a name too long) is an InputError of the file that it names."""
    try:
        yield
    except OSError as error:
        raise fault(Path(os.fsdecode(error.filename or path)), f"can't be read: {error.strerror or error}") from None


def opened(file: Path) -> BufferedReader:
    """For reading. InputError for what is no regular file: it could wait for ever, or never end."""
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            raise fault(file, f"is {NO_FILES.get(stat.S_IFMT(mode), 'special')}; accepted: a regular file")
        return file.open("rb")
    except FileNotFoundError:
        raise fault(file, "is missing") from None
    except OSError as error:
        raise fault(file, f"can't be read: {error.strerror}") from None


def refuse_others(file: Path, names: Collection[str]) -> None:
    """InputError for tensors that are no part of a checkpoint by their names: an adapter, or all parts in one file."""
    if names and 2 * sum(bool(ADAPTER.search(name)) for name in names) >= len(names):  # the rest: scales and biases
        raise fault(file, "is a LoRA or another adapter alone, no checkpoint; accepted: the weights of a whole model")
    if whole := next((prefix for prefix in WHOLE if any(name.startswith(prefix) for name in names)), None):
        message = f"is a single-file checkpoint (its names begin with {whole!r}); accepted: a folder with each part"
        raise fault(file, message)


def fault(file: Path, message: str, field: str = "") -> InputError:
    return InputError([Problem(str(file), field, message)])
