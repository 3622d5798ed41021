"""Weights are the pages of their files: read once, held once for all processes of a node."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.models.stored import Stored
from flowcache.models.tensors import in_folder, in_pth, read

CONFIG = SkyReelsConfig(256, 512, 4, 2, text_dim=32, text_len=8)


@pytest.fixture(params=[".safetensors", ".pth"])
def stored(request, tmp_path) -> list[Stored]:
    state = SkyReelsTransformer(CONFIG).state_dict()
    if request.param == ".pth":
        torch.save(state, tmp_path / "model.pth")
        return in_pth(tmp_path / "model.pth")
    save_file(state, tmp_path / "model.safetensors")
    return in_folder(tmp_path)


def mapped(file: Path, tensor: torch.Tensor) -> bool:
    """Whether a tensor's memory is a private but unwritten view of the file, by this process's map of its memory."""
    first, last = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    places = [re.split("-", line[0]) for line in lines if line[-1].strip() == str(file)]
    return any(int(start, 16) <= first and last <= int(end, 16) for start, end in places)


def count(name: str, file: str = "/proc/self/io") -> int:
    return int(re.search(rf"^{name}:\s*(\d+)", Path(file).read_text(), re.MULTILINE)[1])


def test_weights_are_the_files_own_pages(stored):
    before, anonymous = count("rchar"), count("Anonymous", "/proc/self/smaps_rollup")
    found = {entry.name: (entry, tensor) for entry, tensor in read(stored, "cpu")}
    total = sum(tensor.nbytes for _, tensor in found.values())
    assert len(found) == len(stored) and total > 8 << 20
    assert all(tensor.isfinite().all() for _, tensor in found.values())  # every page is touched
    assert count("rchar") - before < total / 10  # no copy through a buffer
    assert (count("Anonymous", "/proc/self/smaps_rollup") - anonymous) * 1024 < total / 2  # nor another one
    assert all(mapped(entry.file, tensor) for entry, tensor in found.values())


def test_of_some_rows_nothing_else_is_there(stored):
    whole = {entry.name: tensor for entry, tensor in read(stored, "cpu")}
    for entry, tensor in read(stored, "cpu", lambda entry: slice(1, 3)):
        assert torch.equal(tensor, whole[entry.name][1:3])
        assert not len(tensor) or mapped(entry.file, tensor)
    for entry, tensor in read(stored, "cpu", lambda entry: slice(10**6, 10**6)):
        assert tensor.shape == (0, *entry.shape[1:])
