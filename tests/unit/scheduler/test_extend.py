"""A root that grows: what is added, corrected, left and refused, over simulated gangs."""

import io
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from flowcache.errors import InputError, StoreError
from flowcache.storage import layout
from flowcache.storage.commits import dead_letter, list_commits
from flowcache.storage.documents import DeadLetter
from flowcache.storage.extend import rejections
from flowcache.storage.gc import collect
from flowcache.storage.growth import Terms
from flowcache.storage.repair import repair
from flowcache.storage.runs import read_run
from flowcache.storage.status import status
from flowcache.storage.verify import verify
from tests.unit.scheduler.studio import ONE_SEGMENT, Studio, request, sound

EXTEND = Terms(extend=True)
CAT, DOG, EMU = (request(name, ONE_SEGMENT) for name in ("cat", "dog", "emu"))


@pytest.fixture
def done():
    studio = Studio(CAT, DOG)
    assert studio.run().exit_code == 0
    return studio


def again(studio: Studio, *requests, terms=EXTEND, **settings):
    later = Studio(*requests, store=studio.store)
    return later.run(terms=terms, **settings), later


def table(store, name: str) -> list[dict]:
    keys = sorted(entry.key for entry in store.list(f"{layout.META}/{name}"))
    return [row for key in keys for row in pq.read_table(io.BytesIO(store.get(key))).to_pylist()]


def commits(store) -> dict[str, bytes]:
    return {entry.key: store.get(entry.key) for entry in store.list(layout.COMMITS)}


def test_rows_are_added_and_nothing_of_the_others_is_touched(done):
    before, parts = commits(done.store), {row["video_id"] for row in table(done.store, "videos")}
    part = layout.part_key("chunks", read_run(done.store).run_id, 0)
    old = done.store.get(part)
    summary, later = again(done, CAT, DOG, EMU)
    assert summary.exit_code == 0 and summary.done == ("cat", "dog", "emu") and later.notes.order == [("emu", 0)]
    assert before.items() <= commits(done.store).items() and done.store.get(part) == old
    assert {row["video_id"] for row in table(done.store, "videos")} == parts | {"emu"}
    assert status(done.store).count("done") == 3 and sound(done.store)["done"] == 3
    assert done.store.exists(layout.SUCCESS) and collect(done.store, grace=0.0).objects == 0
    run = read_run(done.store)
    assert (len(run.grown), run.grown[1].added, run.run_id) == (2, ["emu"], done.run().run_id)


def test_the_same_extension_again_adds_no_generation(done):
    for _ in range(2):
        summary, later = again(done, CAT, DOG, EMU)
    assert summary.exit_code == 0 and not later.notes.order and len(read_run(done.store).grown) == 2
    assert again(done, CAT, DOG, EMU, terms=Terms())[0].exit_code == 0  # nor is --extend needed any more


def test_both_generations_are_readable_with_what_became_of_each_row(done):
    again(done, replace(DOG, labels={"team": "a"}), EMU)
    rows = {(row["generation"], row["video_id"]): row for row in table(done.store, "manifests")}
    assert {place: row["change"] for place, row in rows.items()} == {
        (1, "cat"): "added", (1, "dog"): "added", (2, "cat"): "left", (2, "dog"): "labelled", (2, "emu"): "added",
    }  # fmt: skip
    assert json.loads(rows[1, "dog"]["request_json"])["labels"] == {}
    assert json.loads(rows[2, "dog"]["request_json"])["labels"] == {"team": "a"}
    (dog,) = (row for row in table(done.store, "videos") if row["video_id"] == "dog")
    assert dog["labels"] == [("team", "a")] and sound(done.store)["done"] == 3


def test_rows_that_left_stay_and_are_rendered_by_who_asks_for_them(done):
    summary, _ = again(done, EMU)
    assert summary.done == ("emu",) and read_run(done.store).grown[1].left == ["cat", "dog"]
    assert status(done.store).count("done") == 3 and done.run().exit_code == 0  # the first manifest goes on, too


def test_a_video_that_is_there_is_refused_field_by_field(done):
    before = commits(done.store)
    terms = Terms(extend=True, manifest="night.jsonl", rows={"cat": ("night.jsonl", 7)})
    with pytest.raises(InputError) as caught:
        again(done, replace(CAT, steps=9, seed=5), DOG, EMU, terms=terms)
    rest = "accepted: the same, or --extend --as NEW_ID, which renders it anew beside that one"
    assert str(caught.value).split("\n") == [
        f"night.jsonl row 7: seed: got 5, but its video is rendered with 1; {rest}",
        f"night.jsonl row 7: steps: got 9, but its video is rendered with 4; {rest}",
    ]
    assert commits(done.store) == before and not read_run(done.store).grown and done.store.exists(layout.SUCCESS)
    with pytest.raises(InputError, match="Cat.*cat"):
        again(done, CAT, DOG, replace(EMU, id="Cat"))


def test_without_extend_the_difference_is_told(done):
    with pytest.raises(InputError, match=r"emu is new\. Give another output, the manifest of that run, or --extend"):
        again(done, CAT, DOG, EMU, terms=Terms())
    with pytest.raises(InputError, match=r"video dog is missing; video cat differs in steps \(was 4, is 9\)"):
        again(done, replace(CAT, steps=9), terms=Terms())


def failed(request) -> DeadLetter:
    return DeadLetter(request.id, 0, 0, "it fell", "work", 3, "", request.to_dict())


def half_dead() -> Studio:
    """Of `cat` the first of two segments is committed, then it was given up; `dog` is done."""
    studio = Studio(request("cat"), DOG)
    studio.run()
    for key in (layout.done_key("cat"), layout.marker_key("cat", 1), layout.SUCCESS):
        studio.store.delete(key)
    dead_letter(studio.store, failed(studio.requests[0]))
    return studio


def test_a_dead_row_is_corrected_and_rendered_anew():
    studio = half_dead()
    summary, later = again(studio, replace(request("cat"), steps=9), DOG)
    assert summary.exit_code == 0 and later.notes.order == [("cat", 0), ("cat", 1)]
    assert not list_commits(studio.store).dead_letters and sound(studio.store)["done"] == 2
    (cat,) = (row for row in table(studio.store, "videos") if row["video_id"] == "cat")
    assert (cat["steps"], cat["status"]) == (9, "done")
    assert read_run(studio.store).grown[1].corrected == ["cat"]
    with pytest.raises(InputError, match="video cat differs in steps"):
        studio.run()  # as it stood first


def test_who_is_stopped_right_after_the_generation_was_written_is_gone_on_with(monkeypatch):
    studio = half_dead()
    with monkeypatch.context() as patch, pytest.raises(StoreError):
        patch.setattr("flowcache.storage.extend.mend_video", lambda *_: (_ for _ in ()).throw(StoreError("gone")))
        again(studio, replace(request("cat"), steps=9), DOG)
    assert len(read_run(studio.store).grown) == 2 and list_commits(studio.store).dead_letters
    summary, later = again(studio, replace(request("cat"), steps=9), DOG)
    assert summary.exit_code == 0 and ("cat", 1) in later.notes.order and sound(studio.store)["done"] == 2


def test_a_part_of_the_rows_is_rendered_and_the_rest_left():
    studio = Studio(CAT, DOG)
    assert again(studio, CAT, DOG, until=0.0)[0].left == 2
    summary, _ = again(studio, DOG, terms=Terms(part=True))
    assert summary.exit_code == 0 and summary.done == ("dog",)
    report = status(studio.store)
    assert (report.count("done"), report.count("waiting"), report.ended, report.exit_code) == (1, 1, True, 0)
    assert not studio.store.exists(layout.SUCCESS) and verify(studio.store, decode=False).sound
    with pytest.raises(InputError, match="video emu is new"):
        again(studio, EMU, terms=Terms(part=True))
    assert studio.run().exit_code == 0 and studio.store.exists(layout.SUCCESS)


def test_a_damaged_generation_is_named_and_mended_by_its_manifest(done):
    again(done, CAT, DOG, EMU)
    key = layout.generation_key(read_run(done.store).run_id, 2)
    data = done.store.get(key)
    for spoilt in (b"{", data.replace(b'"steps":4', b'"steps":5'), data.replace(b'"number":2', b'"number":3')):
        done.store.put(key, spoilt)
        with pytest.raises(StoreError, match="00002.json is damaged: .*--extend` with its manifest writes it anew"):
            read_run(done.store)
    done.store.delete(key)
    summary, later = again(done, CAT, DOG, EMU)
    assert summary.exit_code == 0 and not later.notes.order and sound(done.store)["done"] == 3


def test_what_is_damaged_among_generations_is_found_and_repaired(done):
    again(done, CAT, DOG, EMU)
    key = layout.manifest_key(read_run(done.store).run_id, 2)
    for spoil in (lambda: done.store.put(key, b"x"), lambda: done.store.delete(key)):
        spoil()
        assert [problem.key for problem in verify(done.store, decode=False).problems] == [key]
        repair(done.store, decode=False)
        assert verify(done.store, decode=False).sound


def test_rejected_rows_are_kept_until_their_manifest_says_otherwise(done):
    bad = {"file": "a.jsonl", "field": "fps", "message": "got 0", "row": 3, "video": "owl", "rows": 1}
    nameless = {**bad, "video": None, "row": 4}
    root, empty = replace(read_run(done.store), rejected=[bad, nameless]), replace(read_run(done.store), rejected=[])
    assert rejections(root, empty, Terms(True, manifest="b.jsonl")) == [bad, nameless]
    assert rejections(root, empty, Terms(True, manifest="a.jsonl")) == []
    owl = replace(empty, requests=[{"id": "owl"}])
    assert rejections(root, owl, Terms(True, manifest="b.jsonl")) == [nameless]
    assert rejections(root, replace(empty, rejected=[nameless]), Terms(True, True, "a.jsonl")) == [bad, nameless]
