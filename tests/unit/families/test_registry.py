import json
import os
import shutil

import pytest

from flowcache.errors import InputError
from flowcache.families.check import check
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


@pytest.mark.parametrize("depth", [600, 900, 100_000])
def test_a_spec_that_is_nested_deep_is_refused(copy, depth):
    text = (copy / "flowcache.json").read_text().rstrip().removesuffix("}")
    (copy / "flowcache.json").write_text(text + ', "reuse": ' + '{"a":' * depth + "1" + "}" * (depth + 1))
    with pytest.raises(InputError, match="flowcache.json: is no JSON object: maximum recursion depth"):
        find(str(copy))


@pytest.mark.parametrize(("make", "what"), [(os.mkfifo, "a pipe"), (os.mkdir, "a folder")])
def test_a_spec_that_is_no_file_is_refused(copy, make, what):
    """A pipe would be waited for until somebody writes into it."""
    (copy / "flowcache.json").unlink()
    make(copy / "flowcache.json")
    with pytest.raises(InputError, match=f"flowcache.json: is {what}; accepted: a regular file"):
        find(str(copy))


def test_another_process_finds_a_relative_path(copy, monkeypatch):
    monkeypatch.chdir(copy.parent)
    assert reference("tiny-skyreels") == "tiny-skyreels"
    assert reference(copy.name) == str(copy)


def say(folder, **fields):
    """What is said of a spec with these fields, or (None) without them."""
    file = folder / "flowcache.json"
    raw = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    with pytest.raises(InputError) as refused:
        find(str(folder))
    (problem,) = refused.value.problems
    assert problem.file == str(file)
    return f"{problem.field}: {problem.message}"


def test_a_family_is_known_or_refused_by_name(copy):
    accepted = "accepted: skyreels, magi, or that of an installed package (docs/families.md)"
    assert say(copy, family="sora") == f"family: got 'sora'; {accepted}"
    assert say(copy, family=["magi"]) == f"family: got ['magi']; {accepted}"
    assert say(copy, family=None) == f"family: is missing; {accepted}"


def test_what_a_family_alone_says_is_read_by_it(copy):
    assert say(copy, pipeline={"window": 4}) == "pipeline: models of family skyreels have none"
    assert say(copy, family="magi", pipeline=None).startswith("pipeline: accepted: an object")
    assert "unexpected keyword argument 'windows'" in say(copy, pipeline={"windows": 4})


@pytest.mark.parametrize("text", ["[]", "3", "[" * 100_000, "{"])
def test_what_is_no_object_is_no_spec(copy, text):
    (copy / "flowcache.json").write_text(text)
    with pytest.raises(InputError, match="flowcache.json: is no"):
        find(str(copy))
    assert str(check(copy).problems[0]).startswith(f"{copy}/flowcache.json: is no")
