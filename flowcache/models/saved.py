"""What torch.save wrote, looked at before torch reads it, whose words for damage are those for code. No torch."""

import pickletools
import zipfile
from pathlib import Path

from flowcache.models.formats import fault, opened

MOST, PICKLE_LIMIT = 20_000, 10_000_000  # entries, and bytes of what says which tensor is which
PICKLES = 5  # in a file from before PyTorch 1.6: magic number, version, machine, state dict, keys of what follows


def look_at_zip(file: Path) -> None:
    """InputError for one that is cut short, or that torch.save did not write.

    It compresses nothing, and torch takes what is compressed or of another byte order for numbers as they are.
    """
    try:
        with opened(file) as stream, zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            small = next((entry for entry in entries[:MOST] if _of("byteorder", entry) and entry.file_size < 99), None)
            order = archive.read(small) if small else b"little"
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):
        message = f"is a zip archive cut short at {file.stat().st_size:,} bytes, or damaged: it has no sound end"
        raise fault(file, f"{message}; download it again") from None
    if len(entries) > MOST:
        raise fault(file, f"holds {len(entries):,} entries; accepted: {MOST:,} at most")
    if any(_of("constants.pkl", entry) for entry in entries):
        raise fault(file, "is a TorchScript program, which is not run; accepted: a state dict of torch.save")
    pickles = [entry.file_size for entry in entries if _of("data.pkl", entry)]
    if not pickles or any(entry.compress_type for entry in entries):
        raise fault(file, "is a zip archive that torch.save did not write; accepted: a state dict of torch.save")
    if max(pickles) > PICKLE_LIMIT:
        message = f"holds {max(pickles):,} bytes that say what its tensors are; accepted: {PICKLE_LIMIT:,} at most"
        raise fault(file, message)
    if order != b"little":
        raise fault(file, f"is of byte order {order.decode('latin-1')!r}; accepted: 'little'")


def _of(name: str, entry: zipfile.ZipInfo) -> bool:
    return Path(entry.filename).name == name


def look_at_pickles(file: Path) -> None:
    """InputError where one of them has no end, which torch would take for code, or is absurdly long."""
    try:
        with opened(file) as stream:
            for _ in range(PICKLES):
                for _, _, place in pickletools.genops(stream):
                    if (place or 0) > PICKLE_LIMIT:
                        raise fault(file, f"holds more than {PICKLE_LIMIT:,} bytes that say what its tensors are")
    except (ValueError, OverflowError, MemoryError):
        raise fault(file, "is a pickle (torch.save) that is cut short or damaged; download it again") from None
