"""Every form, read back as those read it who use it."""

import io
import json
import tarfile
from functools import partial

import av
import pandas
import pyarrow.parquet as pq
import pytest

from flowcache.errors import InputError
from flowcache.export import huggingface, lerobot, mp4, webdataset
from flowcache.export.film import find
from flowcache.export.run import export
from flowcache.export.target import RECEIPTS, File, Target
from flowcache.storage import layout
from flowcache.storage.documents import Damaged
from flowcache.storage.joined import joined
from flowcache.storage.objects.store import Store
from tests.unit.storage.samples import HEIGHT, WIDTH, Studio, pixels, request

REQUESTS = (request("cat"), request("dog.v2", 1), request("emu", 1))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(str(tmp_path_factory.mktemp("run")))
    Studio(made, REQUESTS).run()
    return made


def planned(store, form: str, ids: tuple[str, ...] = (), **options):
    films, read = find(store, ids).films, lambda film: joined(store, film.markers)
    if form == "lerobot":
        return lerobot.lerobot(films, read, store)
    made = {"mp4": mp4.mp4, "webdataset": webdataset.webdataset, "huggingface": huggingface.huggingface}[form]
    return made(films, read, **options)


def frames(data: bytes) -> int:
    with av.open(io.BytesIO(data)) as container:
        return sum(1 for _ in container.decode(video=0))


def content(target: Store) -> dict[str, bytes]:
    return {entry.key: target.get(entry.key) for entry in target.list() if not entry.key.startswith(RECEIPTS)}


FORMS = ["mp4", "webdataset", "huggingface", "lerobot"]


@pytest.mark.parametrize("form", FORMS)
def test_a_second_export_writes_nothing_and_one_elsewhere_the_same_bytes(store, tmp_path, form):
    target, other = Store(str(tmp_path / "a")), Store(str(tmp_path / "b"))
    first, said = export(planned(store, form), target), []
    assert not first.faults and first.found == 0
    again = export(planned(store, form), target, said.append)
    assert again.found == len(again.written) == len(first.written) and said == []
    export(planned(store, form), other)
    assert content(target) == content(other)


@pytest.mark.parametrize("form", FORMS)
def test_what_was_lost_is_written_again_and_what_was_changed_if_asked(store, tmp_path, form):
    target = Store(str(tmp_path / "a"))
    options = {"limit": 1} if form == "webdataset" else {}
    first = export(planned(store, form, **options), target)
    before, keys = content(target), [one.key for one in first.written]
    target.delete(keys[0])
    target.put(keys[-1], before[keys[-1]][:-1])
    with pytest.raises(InputError, match=f"holds {keys[-1]}, written by no export, or changed since"):
        export(planned(store, form, **options), target)
    assert keys[0] not in content(target)
    assert export(planned(store, form, **options), target, overwrite=True).found == len(keys) - 2
    assert content(target) == before
    assert export(planned(store, form, **options), target).found == len(keys)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_somebody_elses_is_written_over_only_if_asked(store, tmp_path, form):
    plan, target = planned(store, form), Store(str(tmp_path / "a"))
    for file in [*plan.files, *plan.index]:
        target.put(file.key, b"mine")
        with pytest.raises(InputError, match=f"holds {file.key}, written by no export.*accepted: .*--overwrite"):
            export(plan, target)
        assert [entry.key for entry in target.list()] == [file.key] and target.get(file.key) == b"mine"
        target.delete(file.key)
    target.put(plan.files[0].key, b"mine")
    target.put("notes.txt", b"mine")
    export(plan, target, overwrite=True)
    assert content(target).pop("notes.txt") == b"mine" and len(content(target)) == 1 + len(plan.files + plan.index)
    export(plan, target)


@pytest.mark.parametrize("form", FORMS)
def test_an_export_that_was_killed_knows_what_it_wrote(store, tmp_path, monkeypatch, form):
    target = Store(str(tmp_path / "a"))
    with monkeypatch.context() as killed:
        killed.setattr(Target, "tell", lambda self: None)
        export(planned(store, form), target)
    before = content(target)
    again = export(planned(store, form), target)
    assert (again.found, content(target)) == (0, before)
    assert export(planned(store, form), target).found == len(before)


@pytest.mark.parametrize("form", ["webdataset", "huggingface", "lerobot"])
def test_a_dataset_of_other_videos_is_not_replaced_unasked(tmp_path, form):
    made, target = Store(str(tmp_path / "run")), Store(str(tmp_path / "a"))
    Studio(made, (request("cat", 1), request("dog", 1))).run()
    one, other = (planned(made, form, (only,)) for only in ("cat", "dog"))
    export(one, target)
    before = content(target)
    with pytest.raises(InputError, match="holds .* of an earlier export, which this one has not"):
        export(other, target)
    assert content(target) == before
    export(planned(made, form), target)  # it has all of it, and more
    if form == "webdataset":
        with pytest.raises(InputError, match="holds dog of an earlier export.*accepted: .*--overwrite"):
            export(one, target)
        export(one, target, overwrite=True)
        assert content(target) == before
        export(one, target)


def wrote(video: str, function: str, name: str) -> mp4.Finished:
    data = f"{video} {function} {name}".encode()
    flat = f"{video}-{name.replace('/', '-')}"
    return mp4.Finished(File(flat, name, lambda: data), f"{video}-{function}", name)


def test_no_file_of_a_finish_takes_the_place_of_another_file(tmp_path):
    made = Store(str(tmp_path / "run"))
    Studio(made, (request("cat", 1), request("cat-x", 1))).run()
    others = [
        *(wrote("cat", "m-f", name) for name in ("x.mp4", "poster.jpg", "a/b", "a-b", "Own.txt")),
        wrote("cat", "m-g", "poster.jpg"),
    ]
    target = Store(str(tmp_path / "to"))
    export(planned(made, "mp4", others=others), target)
    found = content(target)
    assert sorted(found) == sorted([
        *("cat.mp4", "cat-x.mp4", "cat-Own.txt"),
        *(f"cat-m-f/{name}" for name in ("x.mp4", "poster.jpg", "a/b", "a-b")), "cat-m-g/poster.jpg",
    ])  # fmt: skip
    assert frames(found["cat-x.mp4"]) == 8 and found["cat-m-g/poster.jpg"] == b"cat m-g poster.jpg"


def test_two_videos_whose_pictures_have_one_name_are_refused(tmp_path):
    made = Store(str(tmp_path))
    Studio(made, (request("cat", 1), request("cat-sheet", 1))).run()
    with pytest.raises(InputError, match="two files would be named cat-sheet.jpg; accepted"):
        planned(made, "mp4", pictures={".jpg": lambda film: b"", "-sheet.jpg": lambda film: b""})


def test_mp4_and_its_pictures(store, tmp_path):
    from PIL import Image

    target = Store(str(tmp_path / "a"))
    pictures = {".jpg": partial(mp4.thumbnail, store), "-sheet.jpg": partial(mp4.contact_sheet, store)}
    export(planned(store, "mp4", pictures=pictures), target)
    found = content(target)
    assert sorted(found) == sorted(f"{one.id}{end}" for one in REQUESTS for end in (".mp4", ".jpg", "-sheet.jpg"))
    assert frames(found["cat.mp4"]) == 24
    middle = Image.open(io.BytesIO(found["cat.jpg"]))
    red, green, blue = middle.resize((1, 1)).getpixel((0, 0))
    wanted = pixels(REQUESTS[0].seed, 12, 1)[0].reshape(-1, 3).mean(0)
    assert middle.size == (WIDTH, HEIGHT) and abs(wanted - (red, green, blue)).max() < 25
    assert Image.open(io.BytesIO(found["cat-sheet.jpg"])).size == (10 * (160 * WIDTH // HEIGHT + 4) - 4, 160)


def test_webdatasets_samples(store, tmp_path):
    target = Store(str(tmp_path / "a"))
    size = find(store).films[0].bytes
    export(planned(store, "webdataset", limit=size + 1), target)
    found, samples = content(target), {}
    assert len(found) > 1
    for data in found.values():
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                key, _, end = member.name.partition(".")
                samples.setdefault(key, {})[end] = archive.extractfile(member).read()
    assert list(samples) == ["00000000", "00000001", "00000002"]
    assert all(set(sample) == {"json", "mp4", "txt"} for sample in samples.values())
    told = [json.loads(sample["json"]) for sample in samples.values()]
    assert [one["id"] for one in told] == ["cat", "dog.v2", "emu"]
    assert samples["00000000"]["txt"] == b"a cat moves" and frames(samples["00000000"]["mp4"]) == 24


def test_huggingfaces_folder(store, tmp_path):
    target = Store(str(tmp_path / "a"))
    export(planned(store, "huggingface"), target)
    found = content(target)
    rows = pq.read_table(io.BytesIO(found["metadata.parquet"])).to_pylist()
    assert [row["id"] for row in rows] == ["cat", "dog.v2", "emu"]
    assert {row["file_name"] for row in rows} == found.keys() - {"metadata.parquet", "README.md"}
    assert json.loads(rows[0]["labels"]) == {"team": "red", "shelf": "3"} and frames(found[rows[0]["file_name"]]) == 24
    assert all(f"| `{name}` |" in found["README.md"].decode() for name in rows[0])


def test_lerobots_dataset(store, tmp_path):
    target = Store(str(tmp_path / "a"))
    export(planned(store, "lerobot"), target)
    found = content(target)
    info = json.loads(found["meta/info.json"])
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"], info["fps"]) == (3, 40, 3, 8)
    data = pq.read_table(io.BytesIO(found["data/chunk-000/file-000.parquet"]))
    assert data.column_names == [name for name in info["features"] if name != lerobot.CAMERA]
    assert [str(kind) for kind in data.schema.types] == ["float", "int64", "int64", "int64", "int64"]
    assert data["index"].to_pylist() == list(range(40)) and data["timestamp"].to_pylist()[25] == 0.125
    tasks = pandas.read_parquet(io.BytesIO(found["meta/tasks.parquet"]))
    assert tasks.loc["a emu moves"].task_index == 2 and data["task_index"].to_pylist()[-1] == 2
    for row in pq.read_table(io.BytesIO(found["meta/episodes/chunk-000/file-000.parquet"])).to_pylist():
        place = {part: row[f"videos/{lerobot.CAMERA}/{part}"] for part in ("chunk_index", "file_index")}
        video = found[info["video_path"].format(video_key=lerobot.CAMERA, **place)]
        assert frames(video) == row["length"] == row["dataset_to_index"] - row["dataset_from_index"]
    stats = json.loads(found["meta/stats.json"])
    assert stats["index"]["max"] == [39] and stats[lerobot.CAMERA]["count"] == [3]
    assert 0 <= stats[lerobot.CAMERA]["mean"][0][0][0] <= 1


def test_lerobot_takes_one_size_and_rate(tmp_path):
    store = Store(str(tmp_path / "run"))
    Studio(store, (request("cat", 1), request("dog", 1))).run()
    films = find(store).films
    films[0].request["width"] = 64
    with pytest.raises(InputError, match="1 of 64x16 at 8 fps, 1 of 32x16 at 8 fps; accepted: videos of one kind"):
        lerobot.lerobot(films, lambda film: b"", store)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_cant_be_made_leaves_the_dataset_without_its_index(tmp_path, form):
    store, target = Store(str(tmp_path / "run")), Store(str(tmp_path / "a"))
    Studio(store, REQUESTS).run()
    plan = planned(store, form)
    store.put(layout.init_key("emu"), b"somebody else's")
    done = export(plan, target)
    assert len(done.faults) == 1 and isinstance(done.faults[0], Damaged)
    assert content(target).keys() == {file.key for file in plan.files if file.key in {one.key for one in done.written}}
    assert not {file.key for file in plan.index} & content(target).keys()


def test_a_smaller_dataset_is_refused_where_a_larger_one_lies(store, tmp_path):
    target = Store(str(tmp_path / "a"))
    export(planned(store, "huggingface"), target)
    plan = planned(store, "webdataset")
    with pytest.raises(InputError, match="holds README.md and 4 more of an earlier export, which this one has not"):
        export(plan, target)
    assert not {file.key for file in plan.files} & content(target).keys()


def test_damaged_receipts_tell_nothing(store, tmp_path):
    target = Store(str(tmp_path / "a"))
    export(planned(store, "mp4"), target)
    for entry in target.list(RECEIPTS):
        target.put(entry.key, b'{"key": 1}\nx')
    strange = ['"key":[]', '"key":"cat.mp4","bytes":null', '"key":"cat.mp4","bytes":true']
    for number, said in enumerate(strange):
        target.put(f"{RECEIPTS}/{number}.jsonl", f'{{"source":"","sha256":"","bytes":1,{said}}}'.encode())
    target.put(f"{RECEIPTS}/deep.jsonl", b"[" * 100_000)
    with pytest.raises(InputError, match="holds cat.mp4 and 2 more, written by no export"):
        export(planned(store, "mp4"), target)
    assert export(planned(store, "mp4"), target, overwrite=True).found == 0
