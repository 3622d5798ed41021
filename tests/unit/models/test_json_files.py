"""What stands in a checkpoint's folder under the name of a file that is read is read once it is one."""

import json
import os
import shutil
from pathlib import Path

import pytest

from flowcache.errors import InputError
from flowcache.families.check import check
from flowcache.families.registry import bundled, folder_of
from flowcache.models.json_files import read_object
from flowcache.models.tensors import in_folder
from tests.published import tiny_parts, write_diffusers, write_official
from tests.published_magi import write_magi
from tests.time_limit import within


@pytest.fixture
def impatient():
    """What takes 20 seconds has stopped for good."""
    with within(20):
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of every layout, and of both bundled models."""
    folder, parts = tmp_path_factory.mktemp("models"), tiny_parts()
    copies = {name: Path(shutil.copytree(folder_of(name), folder / name)) for name in bundled()}
    return {
        "folder": folder,
        **copies,
        "diffusers": write_diffusers(parts, folder / "diffusers", shards=2),
        "official": write_official(parts, folder / "official"),
        "magi": write_magi(folder / "magi"),
    }


def every_file(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", [*bundled(), "diffusers", "official", "magi"])
def test_a_pipe_in_place_of_any_file_is_never_waited_for(models, name, impatient):
    """Whatever is read of a model: each of its files is a pipe once."""
    path = models[name]
    said = []
    for file in every_file(models["folder"] / name):
        content = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        try:
            said += [problem.message for problem in check(path).problems]
        except InputError as error:
            said.append(str(error))
        finally:
            file.unlink()
            file.write_bytes(content)
    assert sum("is a pipe; accepted: a regular file" in message for message in said) > 3
    assert not check(path).problems


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "Expecting property name"),
        (b"[1]", "got list; accepted: an object"),
        (b"\xff", "can't decode byte"),
        (b'{"a":' * 100_000, "maximum recursion depth"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
    ],
)
def test_what_is_no_object_is_refused_with_the_cause(tmp_path, content, why):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=f"config.json: is no codec config: .*{why}"):
        read_object(tmp_path / "config.json", "codec config")
    with pytest.raises(InputError, match="config.json: is no JSON object"):
        read_object(tmp_path / "config.json")


def test_a_file_without_end_is_not_read_whole(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"a": "x" * 100}))
    with pytest.raises(InputError, match="is larger than 100 bytes"):
        read_object(tmp_path / "config.json", limit=100)


@pytest.mark.parametrize("name", ["x-1-of-99999999999", "x-00001-of-01001", "x-1-of-" + "9" * 200])
def test_absurd_counts_of_shards_are_refused(tmp_path, impatient, name):
    (tmp_path / f"{name}.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="is by its name one of [0-9]+ shards; accepted: 1,000 at most"):
        in_folder(tmp_path)


def test_an_index_of_absurdly_many_shards_is_refused(tmp_path, impatient):
    names = {str(n): f"x-{n}-of-3000.safetensors" for n in range(3_000)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(InputError, match="index.json: 3,000 shards; accepted: 1,000 at most"):
        in_folder(tmp_path)


@pytest.mark.parametrize("shards", [None, 3, "x", [], ["a"], {"a": 3}, {"a": ["x"]}, {"a": "../x"}, {"a": "."}])
def test_an_index_that_names_no_files_beside_it_is_refused(tmp_path, shards):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(InputError, match="index.json: weight_map: (is no index|names)"):
        in_folder(tmp_path)


def test_every_shard_that_is_missing_is_named(tmp_path):
    for name in ("x-00001-of-00003", "y-1-of-2"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"x")
    with pytest.raises(InputError) as refused:
        in_folder(tmp_path)
    named = ["x-00002-of-00003.safetensors", "x-00003-of-00003.safetensors", "y-2-of-2.safetensors"]
    assert [Path(problem.file).name for problem in refused.value.problems] == named
