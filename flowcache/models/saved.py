"""What torch.save wrote, looked at before torch reads it, whose words for damage are those for code. No torch."""

import pickletools
import zipfile
from pathlib import Path

from flowcache.models.formats import fault, opened

PICKLES = 5  # in a file from before PyTorch 1.6: magic number, version, machine, state dict, keys of what follows


def look_at_zip(file: Path) -> None:
    """InputError for one that is cut short, or that torch.save did not write."""
    try:
        with opened(file) as stream, zipfile.ZipFile(stream) as archive:
            inside = {Path(name).name for name in archive.namelist()}
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        message = f"is a zip archive cut short at {file.stat().st_size:,} bytes, or damaged: it has no sound end"
        raise fault(file, f"{message}; download it again") from None
    if "constants.pkl" in inside:
        raise fault(file, "is a TorchScript program, which is not run; accepted: a state dict of torch.save")
    if "data.pkl" not in inside:
        raise fault(file, "is a zip archive that torch.save did not write; accepted: a state dict of torch.save")


def look_at_pickles(file: Path) -> None:
    """InputError where one of them has no end: torch would take half a name for code."""
    try:
        with opened(file) as stream:
            for _ in range(PICKLES):
                for _ in pickletools.genops(stream):
                    pass
    except (ValueError, OverflowError, MemoryError):
        raise fault(file, "is a pickle (torch.save) that is cut short or damaged; download it again") from None
