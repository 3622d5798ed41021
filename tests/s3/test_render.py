"""A whole render through Ray into an S3 server, resumed and verified there."""

import io
import json

import duckdb
import pyarrow.dataset as ds
import pytest
from PIL import Image
from pyarrow.fs import FSSpecHandler, PyFileSystem
from s3fs import S3FileSystem

import flowcache
from flowcache.api import check
from flowcache.errors import StoreError
from flowcache.inputs.media import load_image
from flowcache.inputs.options import RunOptions
from flowcache.inputs.schema import RowDefaults
from flowcache.storage.objects.store import Store
from flowcache.storage.verify import verify

ROWS = [
    {"id": "long", "prompt": "a red circle moving right on a blue background", "frames": 69, "steps": 2},
    {"id": "short", "prompt": "a green square moving up on a white background", "frames": 9, "steps": 2},
]


@pytest.fixture
def output(server):
    return f"s3://{server.bucket()}/night"


def test_render_resume_verify_and_read_back(server, output, cluster):
    def render(address):
        options = RunOptions(address=address, gangs=1)
        return flowcache.render(ROWS, output=output, storage_options=server.options(), options=options)

    assert render(cluster).rendered == 7
    assert render("127.0.0.1:1").rendered == 0  # all is committed: no Ray is asked
    report = verify(Store(output, **server.options()))
    assert report.sound and report.counts["frames"] == 78, report.problems

    filesystem = PyFileSystem(FSSpecHandler(S3FileSystem(**server.options())))
    root = output.removeprefix("s3://")
    videos, chunks = (
        ds.dataset(f"{root}/meta/{name}", filesystem=filesystem, partitioning="hive").to_table()
        for name in ("videos", "chunks")
    )
    found = duckdb.sql(
        "select video_id, sum(c.frames) from videos v join chunks c using (video_id) group by 1 order by 1"
    )
    assert found.fetchall() == [("long", 69), ("short", 9)] and videos.num_rows == 2 and chunks.num_rows == 7


def test_the_endpoint_reaches_manifest_and_pictures_too(server, tmp_path):
    bucket = server.bucket()
    inputs = Store(f"s3://{bucket}/in", **server.options())
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    inputs.put("start.png", picture.getvalue())
    inputs.put("night.jsonl", json.dumps({"image": "start.png", "prompt": "a red circle", "frames": 9}).encode())
    (request,), problems, _, _ = check(f"s3://{bucket}/in/night.jsonl", RowDefaults(), server.options())
    assert not problems and request.image == f"s3://{bucket}/in/start.png"
    frames = load_image(request.image, 64, 64, request.media_sha256, server.options())
    assert frames.shape == (1, 64, 64, 3) and (frames[0, 0, 0] == [255, 0, 0]).all()
    with pytest.raises(StoreError):
        load_image(request.image, 64, 64, access={"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "s"})
