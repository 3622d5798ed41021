"""A calibration in a folder of its own, which is a model's name: of a checkpoint that nobody may write to."""

import json
import shutil

import pytest

from flowcache.cache.fixed_steps import Conditions, FewerSteps
from flowcache.errors import InputError
from flowcache.families import calibrations
from flowcache.families.check import check, sound
from flowcache.families.registry import find, folder_digest, load_model

MADE = FewerSteps(0.3, Conditions(30, 3.0, 3.0, 6, 3), 9, 2)


@pytest.fixture
def checkpoint(tmp_path):
    return shutil.copytree(find("tiny-skyreels").path, tmp_path / "checkpoint")


def calibrated(folder, model, digest):
    folder.mkdir()
    calibrations.write(folder, digest, [MADE], str(model))
    return str(folder)


def test_it_takes_the_place_of_the_checkpoints_own(checkpoint, tmp_path):
    own, digest = find(str(checkpoint)), folder_digest(checkpoint, without=calibrations.FILE)
    assert own.calibrations and MADE not in own.calibrations
    named = calibrated(tmp_path / "night", checkpoint, digest)
    found = find(named)
    assert found.calibrations == (MADE,) and found.path == str(checkpoint)
    assert len({found.digest, own.digest, digest}) == 3  # another run, with other coefficients
    assert sound(named) == found == load_model(named).spec and "transformer" in check(tmp_path / "night").parts
    assert find(calibrated(tmp_path / "bundled", "tiny-skyreels", digest)).path == find("tiny-skyreels").path


@pytest.mark.parametrize("spoilt", ['{"checkpoint": "0", "presets": []}', "{"])
def test_what_the_checkpoint_has_itself_is_not_looked_at(checkpoint, tmp_path, spoilt):
    """Nobody can mend it there."""
    named = calibrated(tmp_path / "night", checkpoint, folder_digest(checkpoint, without=calibrations.FILE))
    (checkpoint / calibrations.FILE).write_text(spoilt)
    folder_digest.cache_clear()
    assert find(named) == sound(named) and check(tmp_path / "night").problems == []
    for ask in (find, sound):
        with pytest.raises(InputError, match=calibrations.FILE):
            ask(str(checkpoint))


def test_what_else_lies_in_its_folder_makes_it_no_other_model(checkpoint, tmp_path):
    """Walks, outputs, notes: a run that began before them goes on."""
    named = calibrated(tmp_path / "night", checkpoint, folder_digest(checkpoint, without=calibrations.FILE))
    before = find(named)
    for name in ("walk.npz", "notes.json"):
        (tmp_path / "night" / name).write_text("{}")
    folder_digest.cache_clear()
    assert find(named) == before


def test_what_is_wrong_with_it_is_told_by_its_file(checkpoint, tmp_path):
    digest = folder_digest(checkpoint, without=calibrations.FILE)
    named = {
        "another": (checkpoint, "0", f"checkpoint: is another's; accepted: {digest}"),
        "gone": (tmp_path / "nowhere", digest, f"model: '{tmp_path / 'nowhere'}' does not exist"),
        "itself": (tmp_path / "itself", digest, f"model: '{tmp_path / 'itself'}' is no model"),
    }
    for name, (model, known, message) in named.items():
        folder = calibrated(tmp_path / name, model, known)
        for ask in (find, sound):
            with pytest.raises(InputError) as caught:
                ask(folder)
            assert f"{tmp_path / name / calibrations.FILE}: {message}" in str(caught.value)
        assert check(tmp_path / name).problems
    file = tmp_path / "another" / calibrations.FILE
    for wrong in (1, "", ["x"]):
        file.write_text(json.dumps({"checkpoint": digest, "model": wrong, "presets": []}))
        with pytest.raises(InputError, match="model: is no name or path; accepted"):
            find(str(tmp_path / "another"))
    file.write_text(json.dumps({"checkpoint": digest, "presets": []}))  # of an older version
    with pytest.raises(InputError, match="is no model"):
        find(str(tmp_path / "another"))


def test_beside_a_checkpoint_it_is_that_ones_whatever_it_names(checkpoint, tmp_path):
    digest = folder_digest(checkpoint, without=calibrations.FILE)
    calibrations.write(checkpoint, digest, [MADE], str(tmp_path / "gone"))
    folder_digest.cache_clear()
    assert find(str(checkpoint)).calibrations == (MADE,)
