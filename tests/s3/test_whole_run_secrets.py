"""A render whose manifest, job, output, endpoint and pictures are URLs with secrets; one of the pictures is refused
once the workers ask for it. None of the secrets is in anything that the run leaves or says."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from flowcache.storage.commits import read_commits
from flowcache.storage.objects.store import Store

MARK = "hunter2"
KEY, SECRET = "AKIA0HUNTER20KEY0000", f"wJalr/{MARK}+keyOf/nobody"
PICTURES = {  # by id, how it is named after the server's address
    "presigned": f"/a.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY}%2Fs3&X-Amz-Signature={MARK}1",
    "azure": f"/b.png?sv=2024-11-04&se=2030-01-01&sr=b&sig={MARK}2%2Fx%3D",
    "google": f"/c.png?X-Goog-Credential=me%40x.iam&X-Goog-Signature={MARK}3",
    "parameter": f"/d.png;jwt={MARK}4",
    "refused": f"/later-refused.png?X-Amz-Signature={MARK}5",
}


class Pictures(BaseHTTPRequestHandler):
    """Serves one picture under all names, the manifest, and refuses `/later-refused.png` once told."""

    def do_GET(self):  # noqa: N802 (the name that http.server calls)
        if "later-refused" in self.path and self.server.refuses.is_set():
            body = f"<Error><Code>AccessDenied</Code><Resource>{self.path}</Resource></Error>".encode()
            self.send_response(403)
        else:
            body = self.server.manifest if self.path.startswith("/night.jsonl") else self.server.picture
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format, *values):
        """Silent."""


@pytest.fixture
def pictures():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.daemon_threads = True
    server.refuses = threading.Event()
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(data, "png")
    server.picture, server.url = data.getvalue(), f"http://127.0.0.1:{server.server_port}"
    rows = [{"id": name, "prompt": f"a red circle {name}", "frames": 9, "steps": 1, "image": server.url + path}
            for name, path in PICTURES.items()]  # fmt: skip
    server.manifest = "".join(json.dumps(row) + "\n" for row in rows).encode()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def run(moto, pictures):
    """run(*arguments) -> (exit code, all it said): with the keys of the store and a Ray folder of its own."""
    ray = Path(tempfile.mkdtemp(prefix="fcs", dir="/tmp"))  # sockets' paths must be short

    def call(*arguments: str) -> tuple[int, str]:
        ours = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": moto.endpoint}
        environment = {**os.environ, **ours, "RAY_TMPDIR": str(ray), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "flowcache.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
        return done.returncode, done.stdout + done.stderr

    call.ray = ray
    yield call
    shutil.rmtree(ray, ignore_errors=True)


def told(text: str | bytes) -> bool:
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    return MARK in text or SECRET in text


@pytest.mark.slow
def test_a_whole_render_and_a_failing_one_keep_every_secret(run, moto, pictures, tmp_path):
    root = f"s3://{moto.bucket()}/night"
    job = tmp_path / "job.yaml"
    settings = f"output: {root}\nretries: 0\ngangs: 1\nallow_private_media: true\n"
    job.write_text(f"manifest: {pictures.url}/night.jsonl?sig={MARK}6\n{settings}")
    ready = threading.Thread(target=refuse_after_planning, args=(pictures, Store(root, **moto.options())), daemon=True)
    ready.start()
    code, said = run("render", "--job", str(job), "--log-json")
    assert code == 3 and "AccessDenied" not in said.partition("later-refused")[0], said[-3000:]
    shown = {"render": said}
    for command in ("status", "verify", "report"):
        extra = ("--to", str(tmp_path / "page.html")) if command == "report" else ()
        shown[command] = run(command, root, *extra)[1]
    shown["page"] = (tmp_path / "page.html").read_text()
    assert [name for name, text in shown.items() if told(text)] == []

    store = Store(root, **moto.options())
    letter = read_commits(store).dead_letters["refused"]
    assert "later-refused.png" in letter.cause and set(read_commits(store).done) == set(PICTURES) - {"refused"}
    objects = {entry.key: store.get(entry.key) for entry in store.list()}
    tables = {key: str(pq.read_table(io.BytesIO(data)).to_pylist()) for key, data in objects.items()
              if key.endswith(".parquet")}  # fmt: skip
    assert len(tables) >= 2 and any(key.startswith("_run/") for key in objects)
    assert [key for key, data in (objects | tables).items() if told(data)] == []

    logs = [path for path in run.ray.rglob("*") if path.is_file()]
    assert any("later-refused" in path.read_text(errors="replace") for path in logs)  # the rank's own log tells of it
    assert [str(path) for path in logs if told(path.read_bytes())] == []


def refuse_after_planning(pictures, store: Store) -> None:
    """The planner has seen the picture once the run is written down."""
    while not any(entry.key.startswith("_run/") for entry in store.list("_run")):
        threading.Event().wait(0.05)
    pictures.refuses.set()


@pytest.mark.parametrize(
    "where",
    [
        ("--output", f"s3://{KEY}:{SECRET}@bucket/night"),
        ("--output", f"s3:/{KEY}:{SECRET}@bucket/night"),
        ("--output", f"s3://bucket/night?sig={MARK}"),
        ("--output", f"s3://bucket/night#token={MARK}"),
        ("--endpoint-url", f"https://me:{SECRET}@host:9000"),
    ],
)
def test_credentials_in_output_and_endpoint_are_refused_and_not_shown(run, pictures, tmp_path, where):
    others = () if where[0] == "--output" else ("--output", "s3://bucket/night")
    code, said = run("render", f"{pictures.url}/night.jsonl?sig={MARK}6", *where, *others)
    assert code == 2 and "accepted: " in said and "Traceback" not in said and not told(said)


@pytest.mark.parametrize(
    "name", ["//me:{}@127.0.0.1:1/m.jsonl", "http://me:{}@127.0.0.1:1/m.jsonl", "nothing#token={}"]
)
def test_a_manifest_that_cannot_be_read_is_named_without_its_secret(run, tmp_path, name):
    code, said = run("render", name.format(SECRET), "--output", str(tmp_path / "out"))
    assert code == 2 and "Traceback" not in said and not told(said), said
