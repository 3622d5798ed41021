"""The README, docs/cookbook.md and docs/operators.md, done as a reader does them: each command, with an S3 server and a
Ray on this machine in place of a cloud and a cluster. `s3://bucket` and `--address auto` are what the pages say."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pandas
import pytest
import s3fs
from PIL import Image

from tests.e2e.rows import PROMPT, write

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^## (.*?)$|^```(\w*)\n(.*?)^```", re.S | re.M)
LEFT_OUT = {  # by what a line begins with: what does that
    "make demo": "tests/e2e/test_render.py and CI",
    "make test": "this",
    "flowcache stop": "tests/unit/cli/test_stop_command.py: it would stop whatever else renders on this machine",
    "flowcache submit": "tests/cluster/test_submit.py",
    "flowcache models check /models/skyreels": "tests/e2e/test_checkpoints.py",
    "flowcache render night.jsonl --output runs/night --watermark trustmark": "tests/unit/worker/test_mark.py",
    "flowcache render night.jsonl --output runs/ours --watermark mymarks": "tests/e2e/test_hooks.py",
}
FRAME = "import pandas\n\nframe = pandas.DataFrame([{'prompt': 'a red circle', 'frames': 9}])"


def row(name: str, **fields) -> dict:
    return {"id": name, "prompt": PROMPT, "frames": 9, "steps": 2, **fields}


NIGHT = [row(name, labels={"team": team}) for name, team in (("intro", "a"), ("cat-1", "b"), ("cat-2", "a"))]


def sections(page: str) -> list[tuple[str, str, str]]:
    """(heading, language, text) of each fence, in order."""
    found, heading = [], ""
    for title, language, text in FENCE.findall((ROOT / page).read_text()):
        heading = title or heading
        if not title:
            found.append((heading, language, text))
    return found


def commands(text: str) -> list[str]:
    """Lines for a shell, without what the page says about them."""
    lines = (line.partition(" #")[0].strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line]


@dataclass
class Desk:
    """A folder with what the pages take for given, and an environment in which its commands run."""

    folder: Path
    environment: dict[str, str]
    ran: list[str] = field(default_factory=list)

    def run(self, line: str) -> None:
        """A command of a page."""
        ended = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, (line, ended.stdout[-3000:], ended.stderr[-3000:])
        self.ran.append(line)

    def python(self, code: str) -> None:
        (self.folder / "example.py").write_text(code)
        self.run(f"{sys.executable} example.py")

    def ask(self, query: str) -> list[tuple]:
        """What duckdb answers, without its extension for S3, which is fetched from the network."""
        with duckdb.connect() as connection:
            connection.register_filesystem(s3fs.S3FileSystem(**self.s3))
            return connection.sql(query.replace("'runs/", f"'{self.folder}/runs/")).fetchall()

    @property
    def s3(self) -> dict[str, str]:
        names = {"endpoint_url": "AWS_ENDPOINT_URL", "key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}
        return {option: self.environment[name] for option, name in names.items()}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """With a Ray and a server of its own, whose credentials the Ray's nodes have in their environment."""
    from moto.server import ThreadedMotoServer
    from ray.cluster_utils import Cluster

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'examples'}")
    ray = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    made = Desk(tmp_path, {**os.environ, "PATH": path, "RAY_ADDRESS": ray.address, "PYTHONPATH": str(ROOT)})
    bucket = s3fs.S3FileSystem(skip_instance_cache=True, **made.s3)
    if bucket.exists("bucket"):  # moto's buckets outlive its servers
        bucket.rm("bucket", recursive=True)
    bucket.mkdir("bucket")
    write(tmp_path / "night.jsonl", NIGHT)
    pandas.DataFrame(NIGHT).to_parquet(tmp_path / "night.parquet")
    bucket.put(str(tmp_path / "night.parquet"), "bucket/")
    yield made
    ray.shutdown()
    server.stop()


def pictures(desk: Desk) -> None:
    (desk.folder / "pictures").mkdir()
    Image.new("RGB", (64, 64), "blue").save(desk.folder / "pictures" / "cat.png")
    (desk.folder / "pictures" / "cat.txt").write_text(PROMPT)


def last_night(desk: Desk) -> None:
    desk.run("flowcache render night.jsonl --output s3://bucket/last-night --address auto")


def longer(desk: Desk) -> None:
    write(desk.folder / "longer.jsonl", [*NIGHT, row("dog")])


BEFORE = {  # by heading: what a recipe takes for given
    "What will it take?": last_night,
    "A folder of pictures becomes videos": pictures,
    "Which policy may I use?": lambda desk: write(desk.folder / "rows.jsonl", [row("a", frames=33, steps=12)]),
    "More rows, and mended ones": longer,
}


def do(desk: Desk, page: str) -> None:
    before = dict(BEFORE)
    for heading, language, text in sections(page):
        before.pop(heading, lambda desk: None)(desk)
        if language in ("", "console", "bash") and not text.startswith("manifest row"):
            for line in commands(text):
                if not any(line.startswith(begin) for begin in LEFT_OUT):
                    desk.run(line)
        elif language == "python":
            desk.python(f"{FRAME}\n{text}" if "(frame" in text else text)
        elif language == "sql":
            assert desk.ask(text)
        elif language == "json":
            shots(desk, text)


def shots(desk: Desk, text: str) -> None:
    """Rows as the page shows them; one that is spread over several lines on one."""
    lines = text.splitlines() if text.count("\n{") or text.count("\n") == 1 else [text.replace("\n", " ")]
    (desk.folder / "shown.jsonl").write_text("\n".join(lines) + "\n")
    desk.run("flowcache plan shown.jsonl")


@pytest.mark.slow
def test_the_cookbook(desk):
    do(desk, "docs/cookbook.md")
    assert len(desk.ran) > 25
    folder = desk.folder
    assert (folder / "look.webp").stat().st_size > 1000 and (folder / "mp4s" / "intro.mp4").stat().st_size > 1000
    assert "cdn.example.com/night/media/intro/" in (folder / "report.html").read_text()
    bucket = s3fs.S3FileSystem(skip_instance_cache=True, **desk.s3)
    assert bucket.exists("bucket/night/_SUCCESS") and bucket.exists("bucket/set/shard-000000.tar")
    query = "select video_id, status from 's3://bucket/night/meta/videos/*/*.parquet'"
    assert dict(desk.ask(query)) == dict.fromkeys(["intro", "cat-1", "cat-2", "dog"], "done")


@pytest.mark.slow
def test_the_readme(desk):
    for name in ("manifests", "media"):
        (desk.folder / name).mkdir()
    for name in ("start", "end"):
        Image.new("RGB", (64, 64), "blue").save(desk.folder / "media" / f"{name}.png")
    write(desk.folder / "manifests" / "demo.jsonl", NIGHT)  # thirteen long videos there
    do(desk, "README.md")
    assert (desk.folder / "mp4s" / "intro.mp4").stat().st_size > 1000
    assert {path.name for path in (desk.folder / "runs").iterdir()} == {"demo", "one", "two"}


@pytest.mark.slow
def test_the_page_for_operators(desk):
    for name in ("last-night", "night"):
        desk.run(f"flowcache render night.parquet --output s3://bucket/{name} --address auto")
    do(desk, "docs/operators.md")
    assert len(desk.ran) == 2 + 2 + 5


def test_every_page_has_its_commands():
    counts = {page: sum(len(commands(text)) for _, language, text in sections(page) if not language)
              for page in ("README.md", "docs/cookbook.md", "docs/operators.md")}  # fmt: skip
    assert counts["docs/cookbook.md"] > 20 and min(counts.values()) > 8
    headings = {heading for heading, *_ in sections("docs/cookbook.md")}
    assert BEFORE.keys() <= headings and len(headings) >= 10
