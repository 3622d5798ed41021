import json
import shutil

import pytest

from flowcache.errors import InputError
from flowcache.families.registry import bundled, find, folder_digest, reference


def test_bundled_models_are_found_by_name():
    for name in bundled():
        spec = find(name)
        assert spec.name == name and spec.window % spec.chunk == 0 and spec.overlap % spec.chunk == 0


def test_unknown_names_list_what_there_is():
    with pytest.raises(InputError, match="tiny-skyreels"):
        find("no-such-model")


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(find("tiny-skyreels").path, folder)
    return folder


def test_a_folder_is_found_by_path_with_the_same_digest(copy):
    assert find(str(copy)).digest == find("tiny-skyreels").digest


def test_the_digest_sees_every_weight_but_not_the_card(copy):
    before = folder_digest(copy)
    folder_digest.cache_clear()
    (copy / "README.md").write_text("another card")
    assert folder_digest(copy) == before
    folder_digest.cache_clear()
    (copy / "transformer" / "config.json").write_text("{}")
    assert folder_digest(copy) != before


def test_unknown_keys_of_a_spec_are_refused(copy):
    raw = json.loads((copy / "flowcache.json").read_text()) | {"chunks": 3}
    (copy / "flowcache.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="chunks: is no known key"):
        find(str(copy))


def test_another_process_finds_a_relative_path(copy, monkeypatch):
    monkeypatch.chdir(copy.parent)
    assert reference("tiny-skyreels") == "tiny-skyreels"
    assert reference(copy.name) == str(copy)
