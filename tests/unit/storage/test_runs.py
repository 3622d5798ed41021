"""One root, one run: identity, taking up again, and refusals that say what differs."""

import dataclasses
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from flowcache.errors import InputError, Problem, StoreError
from flowcache.records import Shot
from flowcache.scheduler.gang_pool import ClusterError
from flowcache.storage import claims, layout, ownership, runs
from flowcache.storage.commits import dead_letter
from flowcache.storage.documents import DeadLetter, RunRecord, canonical, parse, to_json
from flowcache.storage.identity import plan_totals
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import Superseded, take
from flowcache.storage.runs import begin_run, new_run, read_run, spec_hash
from flowcache.storage.verify import verify
from tests.unit.storage.samples import DIGESTS, Studio, plan, request


@pytest.fixture
def store():
    return Store(f"memory://{uuid.uuid4().hex}")


def record(*requests, digests=DIGESTS):
    return new_run(requests, digests, plan(requests), "0.1.0")


def begun(store, *requests):
    """A run of which a segment is committed."""
    Studio(store, requests).render(plan(requests)[0], None)
    return begin_run(store, record(*requests))


def refused(store, *requests, digests=DIGESTS) -> str:
    with pytest.raises(InputError) as caught:
        begin_run(store, record(*requests, digests=digests))
    assert len(runs.read_runs(store)) == 1
    return str(caught.value)


def test_the_identity_is_what_is_rendered_with_which_weights():
    cat, dog = request("cat"), request("dog")
    identity = spec_hash([cat, dog], DIGESTS, {})
    assert spec_hash([dog, cat], DIGESTS, {}) == identity
    assert record(cat, dog).run_id == identity[:16]
    assert spec_hash([cat], DIGESTS, {}) != identity != spec_hash([cat, dog], {"tiny": "e" * 64}, {})
    for change in ({"seed": 1}, {"labels": {}}, {"policy": {"name": "off"}}, {"shots": (Shot("another", 8),)}):
        assert spec_hash([dataclasses.replace(cat, **change), dog], DIGESTS, {}) != identity


def test_every_field_of_a_request_survives_the_store(store):
    wanted = request("cat", image="s3://b/i.png", video=None, priority=3, negative_prompt='blür \u2028 "x"')
    begin_run(store, record(wanted))
    assert canonical(read_run(store).requests[0]) == canonical(wanted.to_dict())


def test_a_run_is_taken_up_again_with_its_first_record(store):
    first = begin_run(store, record(request("cat")))
    again = begin_run(store, dataclasses.replace(record(request("cat")), created=1.0, flowcache_version="9"))
    assert to_json(again) == to_json(first)


def test_another_run_is_refused_with_what_differs(store):
    begun(store, request("cat"), request("dog"), request("owl"))
    message = refused(
        store,
        request("cat", seed=99, steps=7),
        request("owl"),
        request("emu"),
        digests={"tiny": "e" * 64},
    )
    assert f"{store.url}: output: holds another run (" in message
    assert (
        "weights of model tiny changed; video emu is new; video dog is missing; "
        "video cat differs in seed (was 12, is 99), steps (was 4, is 7). "
        "Give another output, or the manifest, model and settings of that run" in message
    )


def test_a_precision_that_was_asked_for_is_part_of_the_identity(store):
    cat, asked = request("cat"), {"dtype": "fp32", "weights": "int8", "vae_tiling": "on", "compile": "on"}
    plain, precise = (new_run([cat], DIGESTS, plan([cat]), "0.1.0", numerics=given) for given in (None, asked))
    assert plain.spec_hash == spec_hash([cat], DIGESTS, {}) != precise.spec_hash == spec_hash([cat], DIGESTS, asked)
    begin_run(store, precise)
    Studio(store, (cat,)).render(plan([cat])[0], None)
    assert read_run(store).numerics == asked and begin_run(store, precise).run_id == precise.run_id
    said = "compile was on and is off; dtype was fp32 and is auto; vae_tiling was on and is auto; weights was int8"
    assert said in refused(store, cat)


def test_many_differences_are_counted(store):
    begun(store, *(request(f"v{i}", 1) for i in range(30)))
    assert "video v16 is missing; and 21 more. Give" in refused(store, request("new", 1))


@pytest.fixture
def lively(monkeypatch):
    """Drivers give more signs of life than they need to."""
    monkeypatch.setattr(ownership, "BEAT", 0.05)
    monkeypatch.setattr(ownership, "SILENT", 3.0)


def test_two_drivers_with_different_runs_never_share_a_root(store, lively):
    """All find the root empty; one goes on, the others are told, or find out before they commit anything."""
    wanted = [record(request("cat", 1, seed=seed)) for seed in range(6)]

    def begin(one):
        try:
            with take(store, begin_run(store, one), "render") as hold:
                time.sleep(2)
                hold.look()
                return one.run_id
        except (InputError, Superseded):
            return None

    with ThreadPoolExecutor(6) as pool:
        begun = {run_id for run_id in pool.map(begin, wanted) if run_id}
    assert begun == {read_run(store).run_id}


def test_the_later_of_two_drivers_is_refused(store, monkeypatch, lively):
    other, holds = record(request("dog")), ExitStack()
    real = Store.create

    def raced(self, key, data):
        monkeypatch.setattr(Store, "create", real)
        holds.enter_context(take(self, begin_run(self, other), "render"))  # between the look and the create
        return real(self, key, data)

    monkeypatch.setattr(Store, "create", raced)
    with holds:
        assert "video dog is missing" in refused(store, request("cat"))
        assert read_run(store).run_id == other.run_id


def test_a_root_whose_listings_lag_is_no_other_runs(store, monkeypatch, lively):
    """Three drivers with two manifests, of which none sees what another wrote, unless it asks for it by name."""
    first, other = record(request("cat")), record(request("dog"))
    monkeypatch.setattr(Store, "list", lambda self, prefix="": [])
    assert begin_run(store, first).run_id == begin_run(store, first).run_id == first.run_id
    with take(store, first, "render"), pytest.raises(InputError, match="video cat is missing"):
        begin_run(store, other)
    assert not store.exists(layout.run_key(other.run_id))


def test_a_claim_of_a_driver_that_died_at_once_is_its_runs_alone(store):
    """It may only be slow."""
    first = record(request("cat"))
    claims.claim(store, first.run_id)
    with pytest.raises(InputError, match="is claimed by another run, which begins there now"):
        begin_run(store, record(request("dog")))
    assert begin_run(store, first) == first


def failed_start(store, *requests, said="a driver that found no GPU"):
    """What it leaves: record, owner, a holder that says that it ended, an attempt's objects and a dead letter."""
    run = begin_run(store, record(*requests))
    with suppress(ClusterError), take(store, run, "render"):
        store.put(layout.init_key("cat"), b"of another size")
        dead_letter(store, DeadLetter("cat", None, None, said, "infra", 1, "", requests[0].to_dict()))
        raise ClusterError("no GPU")
    return run


def test_a_root_is_claimed_by_its_first_commit_and_not_by_a_failed_start(store):
    failed, said = failed_start(store, request("cat"), request("dog")), []
    run = begin_run(store, record(request("cat", steps=7)), note=said.append)
    assert read_run(store) == run and not store.exists(layout.run_key(failed.run_id))
    assert not store.exists(layout.init_key("cat")) and not store.exists(layout.dead_letter_key("cat"))
    assert said == [f"nothing was committed of run {failed.run_id} there: run {run.run_id} takes its place"]
    Studio(store, (request("cat", steps=7),)).run()
    assert verify(store).sound
    assert "video dog is new" in refused(store, request("cat", steps=7), request("dog"))


def test_a_root_that_another_driver_is_at_work_on_is_its_runs_before_the_first_commit(store, lively):
    with take(store, begin_run(store, record(request("cat"))), "render"):
        assert "video dog is new" in refused(store, request("dog"))


def test_who_is_stopped_while_it_replaces_a_run_is_gone_on_with(store, monkeypatch):
    failed_start(store, request("cat"))
    monkeypatch.setattr(ownership, "SILENT", 0.3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "delete", lambda self, key: (_ for _ in ()).throw(KeyboardInterrupt))
        begin_run(store, record(request("dog")))
    run = begin_run(store, record(request("owl")))
    assert read_run(store) == run and [one.run_id for one in runs.read_runs(store)] == [run.run_id]


def test_the_plan_counts_by_video():
    requests = (request("cat", 3), request("dog", 1))
    assert plan_totals(plan(requests)) == {
        "videos": {"cat": {"segments": 3, "chunks": 6, "frames": 24}, "dog": {"segments": 1, "chunks": 2, "frames": 8}},
        "segments": 4,
        "chunks": 8,
        "frames": 32,
    }


def test_rejected_rows_are_kept(store):
    problem = Problem("m.jsonl", "fps", "NaN is no number", 3, None)
    begin_run(store, new_run([request("cat")], DIGESTS, [], "0.1.0", [problem]))
    assert Problem(**read_run(store).rejected[0]) == problem


def test_an_empty_root_has_no_run(store):
    with pytest.raises(StoreError, match=r"holds no run; was it rendered with --output memory://"):
        read_run(store)


def test_documents_are_canonical_and_come_back():
    studio = Studio(Store(f"memory://{uuid.uuid4().hex}"), (request("cat"),))
    marker = studio.render(plan(studio.requests)[0], None)
    data = to_json(marker)
    assert parse(type(marker), data, "m") == marker and to_json(parse(type(marker), data, "m")) == data
    assert canonical({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}\n'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("nan")})


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"{}", b'{"schema_version":1,"x":2}', b"\xff\xfe"])
def test_damaged_documents_are_named(data):
    with pytest.raises(StoreError, match="here is damaged: no valid RunRecord"):
        parse(RunRecord, data, "here")


def test_a_start_file_counts_by_its_content_and_not_by_its_place():
    base = request("v")
    here, there = (
        dataclasses.replace(base, image=f"/{place}/a.png", media_sha256="0" * 64) for place in ("here", "there")
    )
    other = dataclasses.replace(here, media_sha256="1" * 64)
    assert spec_hash([here], {}, {}) == spec_hash([there], {}, {}) != spec_hash([other], {}, {})
