"""Pictures and videos that take much to open: each is its own row's fault, and nobody else's."""

import json
import shutil
from functools import partial

import pytest
from PIL import Image

from flowcache import api
from flowcache.errors import MediaError
from flowcache.inputs import sandbox as module
from flowcache.inputs.sandbox import MEMORY, Limits, Sandbox
from flowcache.inputs.schema import RowDefaults
from tests.hostile import bombs
from tests.hostile.memory import growing_by_less_than, peak
from tests.hostile.servers import sends, serving

MIB = 1 << 20


def whole(kind: str, **options):
    """A picture of 64 million pixels, which is accepted: what it takes must be within the limits."""

    def write(path):
        Image.new("P" if kind == "GIF" else "RGBA", (16_000, 4_000), 3).save(path, kind, **options)

    return write


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n",
    "file.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{file}\n",
    "subfile.mp4": "#EXTM3U\n#EXTINF:9,\nconcat:{file}|subfile,,start,0,end,64,,:{file}\n",
    "concat.mp4": "ffconcat version 1.0\nfile '{file}'\nfile {url}\n",
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
    "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=control:{url}\n",
    "svg.png": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/><image href="file://{file}"/></svg>',
    "eps.png": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({file}) run\n",
}
REFUSED = {
    "wide.png": (partial(bombs.png_of, width=60_000, height=60_000), "has too many pixels|has 60000x60000 pixels"),
    "text.png": (bombs.text_png, "is no picture|is a damaged picture"),
    "tags.tif": (bombs.tags_tiff, "is a damaged picture|is no picture"),
    "samples.mp4": (partial(bombs.samples_mp4, samples=2**31 - 1), "has no frames|is a damaged video|is no video"),
    "many.mp4": (partial(bombs.samples_mp4, samples=300_000, present=300_000), "is a damaged video"),
    "back.mp4": (partial(bombs.samples_mp4, samples=12, present=12, delta=-5), "is a damaged video|has no frames"),
    "fast.mp4": (partial(bombs.samples_mp4, samples=12, present=12, base=10**9), "is a damaged video"),
    "edits.mp4": (partial(bombs.edits_mp4, edits=20_000), "says that it lasts"),
    "nested.mp4": (bombs.nested_mp4, "is no video"),
    "endless.mkv": (bombs.endless_mkv, "is no video|has no video|is a damaged video"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(private=True, most=1) as found:
        yield found


def kind_of(name: str) -> str:
    return "image" if name.endswith((".png", ".tif", ".jpg", ".webp", ".gif")) else "video"


def refused(sandbox: Sandbox, path) -> str:
    with growing_by_less_than(50 * MIB), pytest.raises(MediaError) as caught:
        sandbox.probe(str(path), kind_of(path.name), "")
    return str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
def test_bombs_are_refused_and_take_little(tmp_path, sandbox, name):
    write, says = REFUSED[name]
    write(tmp_path / name)
    message = refused(sandbox, tmp_path / name)
    assert any(message.startswith(one) for one in says.split("|")), message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.webp", whole("WEBP", lossless=True, quality=0, method=0)),
        ("a.tif", whole("TIFF", compression="tiff_deflate")),
        ("a.gif", whole("GIF")),
        ("a.png", partial(bombs.png_of, width=16_000, height=4_000, bits=16, colour=6)),
    ],
)
def test_the_largest_pictures_that_are_accepted_are_within_the_limits(tmp_path, name, write):
    write(tmp_path / name)
    with Sandbox(most=1) as sandbox, growing_by_less_than(50 * MIB):
        assert sandbox.probe(str(tmp_path / name), "image", "").width == 16_000
        (child,) = sandbox._all
        assert peak(child._process.pid) < MEMORY


@pytest.mark.parametrize("name", PLAYLISTS)
def test_nothing_else_is_opened_by_what_a_file_says(tmp_path, sandbox, name):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(bombs.small_mp4())
    with serving(sends(secret.read_bytes())) as server:
        (tmp_path / name).write_text(PLAYLISTS[name].format(url=f"{server.url}/x.mp4", file=secret))
        assert refused(sandbox, tmp_path / name).startswith(("is no video", "is no picture", "names '"))
        assert server.asked == []


def test_frames_that_lie_elsewhere_are_not_fetched(tmp_path, sandbox):
    with serving(sends(bombs.small_mp4())) as server:
        bombs.elsewhere_mp4(tmp_path / "a.mp4", f"{server.url}/x.mp4")
        assert sandbox.probe(str(tmp_path / "a.mp4"), "video", "").frames == 12  # those that it holds itself
        assert server.asked == []


@pytest.mark.parametrize(
    "url",
    ["concat:{file}|{file}", "subfile,,start,0,end,64,,:{file}", "file:{file}", "cache:{file}", "async:file:{file}",
     "pipe:0", "fd:", "data:image/png;base64,AAAA", "ftp://127.0.0.1/a.mp4", "rtmp://127.0.0.1/a", "crypto:{file}",
     "hls+http://127.0.0.1/a", "tcp://127.0.0.1:9", "ffrtmphttp://127.0.0.1/", "concatf:{file}", "/dev/zero",
     "/proc/self/environ", "/dev/stdin"],
)  # fmt: skip
def test_no_protocol_of_ffmpeg_is_spoken(tmp_path, sandbox, url):
    (tmp_path / "secret.mp4").write_bytes(bombs.small_mp4())
    with pytest.raises(MediaError, match="does not exist|has the scheme|regular file|is no video"):
        sandbox.probe(url.format(file=tmp_path / "secret.mp4"), "video", str(tmp_path / "m.jsonl"))


def test_limits_end_a_child_and_the_next_one_goes_on(tmp_path, monkeypatch):
    bombs.scans_jpeg(tmp_path / "scans.jpg", side=4000, scans=3000)
    bombs.png_of(tmp_path / "large.png", 8000, 6000, bits=8, colour=6)
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    with Sandbox(most=1) as sandbox:
        monkeypatch.setitem(module.LIMITS, "image", Limits(MEMORY, cpu=1, wall=100))
        assert refused(sandbox, tmp_path / "scans.jpg") == "takes more than 1 s of CPU to be read"
        assert sandbox.probe(str(tmp_path / "good.png"), "image", "").width == 8
        monkeypatch.setitem(module.LIMITS, "image", Limits(200 * MIB, cpu=15, wall=100))
        assert refused(sandbox, tmp_path / "large.png") == "needs more than 200 MiB of memory to be read"
        assert sandbox.image(str(tmp_path / "good.png"), 8, 8).shape == (1, 8, 8, 3)


def test_a_child_that_is_ended_leaves_no_copy_of_what_it_fetched(tmp_path, monkeypatch):
    """512 MiB for each row of a manifest would fill the disk."""
    bombs.scans_jpeg(tmp_path / "scans.jpg", side=4000, scans=3000)
    (tmp_path / "copies").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "copies"))
    monkeypatch.setitem(module.LIMITS, "image", Limits(MEMORY, cpu=1, wall=100))
    with serving(sends((tmp_path / "scans.jpg").read_bytes())) as server, Sandbox(private=True, most=1) as sandbox:
        with pytest.raises(MediaError, match="takes more than 1 s of CPU"):
            sandbox.probe(f"{server.url}/scans.jpg", "image", "")
    assert not list((tmp_path / "copies").iterdir())


def test_bombs_among_good_rows_are_told_by_row_field_and_limit(tmp_path, monkeypatch):
    monkeypatch.setitem(module.LIMITS, "image", Limits(300 * MIB, cpu=1, wall=100))
    bombs.scans_jpeg(tmp_path / "scans.jpg", side=4000, scans=3000)
    bombs.png_of(tmp_path / "large.png", 8000, 7000, bits=8, colour=6)
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    shutil.copy(tmp_path / "good.png", tmp_path / "other.png")
    names = ["good.png", "scans.jpg", "other.png", "large.png", "good.png"]
    rows = [{"id": f"v{number}", "prompt": "a red circle", "image": name} for number, name in enumerate(names)]
    rows[3]["end_image"] = "large.png"
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    good, problems, _, _ = api.check(str(tmp_path / "m.jsonl"), RowDefaults())
    assert [request.id for request in good] == ["v0", "v2", "v4"]
    assert [(problem.row, problem.field) for problem in problems] == [(2, "image"), (4, "image"), (4, "end_image")]
    assert "'scans.jpg' takes more than 1 s of CPU" in problems[0].message
    assert "'large.png' needs more than 300 MiB of memory" in problems[1].message
