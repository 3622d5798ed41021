"""Files that are there whole or not at all."""

import pytest
import torch
from safetensors.torch import save_file

from flowcache.errors import FlowcacheError
from flowcache.models.whole_files import whole


def test_a_file_is_there_when_it_is_whole_and_two_writers_do_not_meet(tmp_path):
    file = tmp_path / "result.json"
    with whole(file) as one, whole(file) as other:
        one.write_text("one")
        other.write_text("other")
        assert not file.exists()
    assert file.read_text() == "one" and [*tmp_path.iterdir()] == [file]


def test_what_was_there_stays_where_writing_fails(tmp_path):
    file = tmp_path / "result.json"
    file.write_text("before")
    with pytest.raises(RuntimeError, match="killed"), whole(file) as part:
        part.write_text("half")
        raise RuntimeError("killed")
    assert file.read_text() == "before" and [*tmp_path.iterdir()] == [file]


def test_what_the_system_refuses_is_said(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FlowcacheError, match=r"folder can't be written \(is a directory\); .*same command goes on"):
        with whole(tmp_path / "folder") as part:
            part.write_text("it")
    with pytest.raises(FlowcacheError, match=r"file can't be written \(.*no such file or directory"):
        with whole(tmp_path / "nowhere" / "file") as part:
            save_file({"a": torch.ones(1)}, part)
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
