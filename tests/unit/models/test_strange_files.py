"""Files that are laid out as they should be, and hold what would be taken for something else, or never end."""

import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flowcache.errors import InputError, Problem
from flowcache.models.formats import readable
from flowcache.models.json_files import check_files, read_object
from flowcache.models.tensors import in_folder, in_pth, in_safetensors
from tests.weights_files import PAGE, POINTER, STATE


def written_anew(file: Path, method: int = zipfile.ZIP_STORED, **changed: bytes) -> Path:
    """What torch.save writes, each entry put into a new archive; by its last name with other content."""
    torch.save(STATE, file)
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, changed.get(Path(name).name.replace(".", "_"), content))
    return file


def test_an_archive_that_is_written_anew_is_read(tmp_path):
    assert {entry.name for entry in in_pth(written_anew(tmp_path / "vae.pth"))} == set(STATE)


def test_what_would_be_mapped_as_other_numbers_is_refused(tmp_path):
    """torch maps compressed entries, and those of another byte order, as they lie in the file."""
    with pytest.raises(InputError, match="torch.save did not write"):
        in_pth(written_anew(tmp_path / "vae.pth", zipfile.ZIP_DEFLATED))
    with pytest.raises(InputError, match="is of byte order 'big'; accepted: 'little'"):
        in_pth(written_anew(tmp_path / "vae.pth", byteorder=b"big"))


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path):
    with pytest.raises(InputError, match="bytes that say what its tensors are; accepted: 10,000,000 at most"):
        in_pth(written_anew(tmp_path / "vae.pth", data_pkl=bytes(11_000_000)))
    with zipfile.ZipFile(tmp_path / "many.pth", "w") as archive:
        for name in ("data.pkl", *map(str, range(20_001))):
            archive.writestr(f"archive/{name}", b"")
    with pytest.raises(InputError, match="holds 20,002 entries"):
        in_pth(tmp_path / "many.pth")


def test_a_header_of_absurd_length_is_not_parsed(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes((11_000_000).to_bytes(8, "little") + b'{"a":' + bytes(11_000_000))
    with pytest.raises(InputError, match="has a header of 11,000,000 bytes; accepted: 10,000,000 at most"):
        in_safetensors(file)


@pytest.mark.parametrize(("content", "says"), [(POINTER, "a Git LFS pointer"), (PAGE, "an HTML page"), (b"", "empty")])
def test_a_config_that_is_none_is_told_what_it_is(tmp_path, content, says):
    (tmp_path / "config.json").write_bytes(content)
    for look in (lambda: read_object(tmp_path / "config.json"), lambda: check_files(tmp_path)):
        with pytest.raises(InputError, match=f"config.json: is {says}"):
            look()


def test_tensors_that_two_files_hold_are_refused(tmp_path):
    for name in ("model.safetensors", "model.fp16.safetensors"):
        save_file(STATE, tmp_path / name)
    with pytest.raises(InputError, match="is there twice: also in model.fp16.safetensors; keep one of the files"):
        in_folder(tmp_path)


def test_hidden_files_are_no_weights(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "._model.safetensors").write_bytes(b"\0\5\x16\7" + bytes(90))  # as macOS writes beside each file
    assert len(in_folder(tmp_path)) == len(STATE)


@pytest.mark.parametrize("name", ["model.pth", "pytorch_model.bin", "model-Q4.gguf"])
def test_what_lies_in_place_of_weights_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"holds no .*safetensors file, but {name}"):
        in_folder(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300 + ".safetensors", "a\0.safetensors", "\ud800.safetensors", "config.json"])
def test_an_index_names_files_of_weights(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(
        InputError, match="weight_map: names .* accepted: names of .*safetensors files in the same"
    ) as told:
        in_folder(tmp_path)
    assert len(str(told.value)) < 400 + len(str(tmp_path))


def test_what_the_system_says_is_told_of_its_file(tmp_path):
    with pytest.raises(InputError, match=r"x: can't be read: File name too long"), readable(tmp_path):
        os.stat(tmp_path / ("x" * 300))
    with pytest.raises(InputError, match=f"{tmp_path}: can't be read: Permission denied"), readable(tmp_path):
        raise PermissionError(13, "Permission denied")


def test_problems_are_printed_in_one_line_whatever_a_tensor_is_called():
    said = str(Problem("a\nb.safetensors", "\x1b[31m\u202e\ud800" + "x" * 10_000, "is no tensor of this model"))
    assert said.isprintable() and len(said) < 400 and "\\x1b[31m" in said
    said.encode()
