"""A run at 24000/1001 frames a second: every time in the store, and in what is exported, is exact."""

import io
import json
import tarfile
from fractions import Fraction

import av
import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from flowcache.export import huggingface, lerobot, mp4, webdataset
from flowcache.export.film import find
from flowcache.export.run import export
from flowcache.inputs.selection import Selection
from flowcache.inputs.where import where
from flowcache.report.page import Limits, report_page
from flowcache.report.sheet import moving_sheet
from flowcache.storage import known, layout
from flowcache.storage.commits import read_commits
from flowcache.storage.documents import Damaged, DoneMarker, SegmentMarker, parse
from flowcache.storage.joined import joined
from flowcache.storage.known import known_markers
from flowcache.storage.objects.store import Store
from flowcache.storage.repair import repair
from flowcache.storage.runs import read_run
from flowcache.storage.verify import verify
from tests.unit.storage.samples import CHUNK, Studio, request

FILM = Fraction(24000, 1001)
CHUNKS = 42  # of the video "film"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(str(tmp_path_factory.mktemp("run")))
    Studio(made, (request("film", CHUNKS // 2, fps=FILM), request("whole", 1, fps=24))).run()
    return made


def test_the_store_is_sound_and_its_documents_say_the_exact_rate(store):
    assert not verify(store).problems
    marker = store.get(layout.marker_key("film", 0))
    assert json.loads(marker)["fps"] == "24000/1001" and parse(SegmentMarker, marker, "a").fps == FILM
    assert parse(DoneMarker, store.get(layout.done_key("film")), "a").fps == FILM
    assert json.loads(store.get(layout.marker_key("whole", 0)))["fps"] == 24
    assert [one["fps"] for one in read_run(store).requests] == ["24000/1001", 24]


@pytest.mark.parametrize("wrong", ["24000/0", "fast", "1/2/3", 23.976, None])
def test_a_marker_with_another_rate_is_damaged(store, wrong):
    said = json.loads(store.get(layout.marker_key("film", 0))) | {"fps": wrong}
    with pytest.raises(Damaged, match="no valid SegmentMarker"):
        parse(SegmentMarker, json.dumps(said).encode(), "a")


def test_the_playlist_drifts_by_nothing(store):
    lines = store.get(layout.playlist_key("film")).decode().splitlines()
    durations = [Fraction(line[len("#EXTINF:") : -1]) for line in lines if line.startswith("#EXTINF")]
    assert len(durations) == CHUNKS
    for count in range(1, CHUNKS + 1):
        assert abs(sum(durations[:count]) - count * CHUNK / FILM) <= Fraction(1, 2_000_000)
    whole = store.get(layout.playlist_key("whole")).decode().splitlines()
    assert [line for line in whole if line.startswith("#EXTINF")] == ["#EXTINF:0.166667,"] * 2


def times(data: bytes) -> list[Fraction]:
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].average_rate == FILM
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def test_every_frame_is_at_its_exact_time_in_chunks_and_exports(store, tmp_path):
    exact = [number / FILM for number in range(CHUNKS * CHUNK)]
    init = store.get(layout.init_key("film"))
    chunks = [chunk for marker in read_commits(store).markers["film"] for chunk in marker.chunks]
    with av.open(io.BytesIO(init + store.get(chunks[-1].key))) as alone:
        assert [frame.pts * frame.time_base for frame in alone.decode(video=0)] == exact[-CHUNK:]
    film = find(store, ["film"]).films
    export(mp4.mp4(film, lambda one: joined(store, one.markers)), Store(str(tmp_path)))
    assert times((tmp_path / "film.mp4").read_bytes()) == exact


def test_tables_keep_their_number_and_say_the_exact_rate_beside_it(store, monkeypatch):
    for name in ("videos", "chunks"):
        key = layout.part_key(name, read_run(store).run_id, 0)
        rows = {row["video_id"]: row for row in pq.read_table(io.BytesIO(store.get(key))).to_pylist()}
        assert [rows["film"][name] for name in ("fps", "fps_num", "fps_den")] == [24, 24000, 1001]
        assert [rows["whole"][name] for name in ("fps", "fps_num", "fps_den")] == [24, None, None]
    path = f"{store.url}/{layout.table_prefix('videos', read_run(store).run_id)}/*.parquet"
    exactly = "frames * coalesce(fps_den, 1)::DOUBLE / coalesce(fps_num, fps)"
    seconds = dict(duckdb.sql(f"select video_id, {exactly} from read_parquet('{path}')").fetchall())
    assert seconds["film"] == pytest.approx(float(CHUNKS * CHUNK / FILM), abs=1e-9) and seconds["whole"] == 8 / 24
    monkeypatch.setattr(known, "FEW", 0)
    found = known_markers(store, read_run(store))
    assert {marker.video_id: marker.fps for marker in found.values()} == {"film": FILM, "whole": 24}


def test_reports_and_sheets_show_it(store):
    page = report_page(store, None, Limits())
    assert "frames at 24000/1001 a second" in page
    assert moving_sheet(store, "WEBP")


def test_datasets_tell_a_number_and_the_exact_rate(store, tmp_path):
    films, read = (
        find(store, chosen=Selection(where=where("fps = 23.976"))).films,
        lambda one: joined(store, one.markers),
    )
    assert [film.id for film in films] == ["film"]
    export(webdataset.webdataset(films, read), Store(str(tmp_path / "web")))
    with tarfile.open(tmp_path / "web/shard-000000.tar") as shard:
        told = json.load(shard.extractfile("00000000.json"))
        exact = [number / FILM for number in range(CHUNKS * CHUNK)]
        assert times(shard.extractfile("00000000.mp4").read()) == exact
    assert told["frame_rate"] == "24000/1001" and told["fps"] == float(FILM)
    assert told["seconds"] == pytest.approx(float(CHUNKS * CHUNK / FILM))
    every = find(store).films
    export(huggingface.huggingface(every, read), Store(str(tmp_path / "hub")))
    rows = pq.read_table(tmp_path / "hub/metadata.parquet").to_pylist()
    assert [(row["fps"], row["frame_rate"]) for row in rows] == [(float(FILM), "24000/1001"), (24.0, "24")]
    export(lerobot.lerobot(films, read, store), Store(str(tmp_path / "robot")))
    info = json.loads((tmp_path / "robot/meta/info.json").read_text())
    assert info["fps"] == info["features"][lerobot.CAMERA]["info"]["video.fps"] == float(FILM)
    stamps = pq.read_table(tmp_path / "robot/data/chunk-000/file-000.parquet")["timestamp"].to_numpy()
    assert np.allclose(stamps, [float(time) for time in exact], atol=1e-6)


def test_a_lost_init_segment_is_made_again(tmp_path):
    store = Store(str(tmp_path))
    Studio(store, (request("film", 1, fps=FILM),)).run()
    before = store.get(layout.init_key("film"))
    store.delete(layout.init_key("film"))
    assert not repair(store).left and store.get(layout.init_key("film")) == before
    assert not verify(store).problems
