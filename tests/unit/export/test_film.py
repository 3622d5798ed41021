"""Which videos are exported."""

import json

import pytest

from flowcache.errors import InputError
from flowcache.export.film import find
from flowcache.inputs.selection import Selection
from flowcache.inputs.where import where
from flowcache.storage import layout
from flowcache.storage.media import AI_MADE
from flowcache.storage.objects.store import Store
from tests.unit.storage.samples import Studio, request


@pytest.fixture
def store(tmp_path):
    made = Store(str(tmp_path / "run"))
    blue = request("emu", 1, labels={"team": "blue"})
    Studio(made, (request("cat"), request("dog", 1), blue)).run()
    return made


def names(store, *ids, **chosen) -> list[str]:
    return [film.id for film in find(store, ids, Selection(**chosen)).films]


def test_all_that_is_finished_or_what_is_meant(store):
    store.delete(layout.done_key("dog"))
    assert names(store) == ["cat", "emu"]
    assert names(store, "dog", "cat") == ["dog", "cat"]
    assert names(store, only=("c*", "e*")) == ["cat", "emu"] and names(store, limit=1) == ["cat"]
    assert names(store, where=where("labels.team = 'blue'")) == names(store, where=where("frames < 10")) == ["emu"]
    assert len(names(store, sample=1)) == 1


def test_what_names_nothing(store):
    with pytest.raises(InputError, match=r"'cta' names no video of run .*; did you mean 'cat'"):
        find(store, ["cta"])
    with pytest.raises(InputError, match=r"--only: 'x\*' names no video of run .*; known are cat, dog, emu"):
        find(store, (), Selection(only=("x*",)))
    with pytest.raises(InputError, match="no finished video that is meant"):
        find(store, (), Selection(where=where("steps > 999")))


def test_what_a_film_says(store):
    film = find(store, ["cat"]).films[0]
    assert (film.frames, film.fps, film.prompts) == (24, 8, ["a cat moves"]) and film.bytes > 500
    told = film.told()
    assert (
        told["seconds"] == 3.0
        and json.loads(told["labels"]) == {"team": "red", "shelf": "3"}
        and told["model_digest"] == "d" * 64
    )
    assert told["digital_source_type"] == AI_MADE
    assert film.source == find(store).films[0].source != find(store, ["dog"]).films[0].source


@pytest.mark.parametrize("harm", ["marker lost", "marker damaged", "DONE damaged"])
def test_a_finished_video_that_is_damaged_is_a_fault_and_no_other_is(store, harm):
    key = layout.done_key("cat") if harm.startswith("DONE") else layout.marker_key("cat", 2)
    if harm.endswith("lost"):
        store.delete(key)
    else:
        store.put(key, b"{")
    found = find(store)
    assert [film.id for film in found.films] == ["dog", "emu"]
    assert len(found.faults) == 1 and "cat" in str(found.faults[0])
