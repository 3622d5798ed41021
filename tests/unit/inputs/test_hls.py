"""The product's own videos as input: the playlist that a run writes, and the MP4 that an export writes."""

import json
import uuid
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from flowcache.errors import MediaError, UnreadableError
from flowcache.export import mp4
from flowcache.export.film import find
from flowcache.export.run import export
from flowcache.inputs import hls
from flowcache.inputs.given import Given, checked
from flowcache.inputs.media import load_clip, probe_media
from flowcache.inputs.sandbox import Sandbox
from flowcache.storage import layout
from flowcache.storage.committed import chunks_of, playable
from flowcache.storage.joined import joined
from flowcache.storage.media import decode
from flowcache.storage.objects.store import Store
from tests.hostile.servers import serving
from tests.unit.storage.samples import FPS, Studio, request

FRAMES = 24  # of the video "cat"


@pytest.fixture
def root(tmp_path) -> Path:
    """A run as it is written."""
    Studio(Store(str(tmp_path / "night")), (request("cat", 3), request("dog", 1, fps=Fraction(24000, 1001)))).run()
    return tmp_path / "night"


def playlist(root: Path, name: str = "cat") -> Path:
    return root / layout.playlist_key(name)


def is_cat(store: Store, frames: np.ndarray, first: int) -> bool:
    """Whether these are the frames of "cat" from `first` on, as its chunks give them."""
    chunks = [store.get(chunk.key) for chunk in chunks_of(playable(store, "cat"))]
    whole = np.stack([pixels for pixels, _ in decode(store.get(layout.init_key("cat")), chunks)])
    return len(whole) == FRAMES and np.array_equal(frames, whole[first : first + len(frames)])


def test_its_frames_are_those_of_all_its_chunks(root):
    found = probe_media(str(playlist(root)), "video", "")
    assert (found.frames, found.width, found.height, found.fps) == (FRAMES, 32, 16, FPS)
    assert found.seconds == (FRAMES - 1) / FPS
    every = load_clip(str(playlist(root)), FRAMES, FPS, 32, 16, found.sha256)
    store = Store(str(root))
    assert is_cat(store, every, 0)
    assert is_cat(store, load_clip(str(playlist(root)), 9, FPS, 32, 16, None, None, None, "crop", True), 0)
    assert is_cat(store, load_clip(str(playlist(root)), 9, FPS, 32, 16), FRAMES - 9)
    exact = Fraction(24000, 1001)
    assert len(load_clip(str(playlist(root, "dog")), 8, exact, 32, 16)) == 8


def test_rows_name_it_by_path_url_or_export(root, tmp_path):
    films = find(Store(str(root)), ["cat"]).films
    export(mp4.mp4(films, lambda film: joined(Store(str(root)), film.markers)), Store(str(tmp_path / "films")))
    places = ["night/media/cat/index.m3u8", f"file://{playlist(root)}", str(playlist(root)), "films/cat.mp4"]
    rows = [{"id": f"r{n}", "prompt": "a red circle", "video": one, "fps": 8} for n, one in enumerate(places)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = checked(Given(str(tmp_path / "m.jsonl")))
    assert not found.problems and [one.video for one in found.requests][:3] == [str(playlist(root))] * 3
    assert len({one.media_sha256 for one in found.requests[:3]}) == 1


def test_it_comes_from_other_stores_too(root):
    name = f"memory://{uuid.uuid4().hex}"
    Studio(Store(name), (request("cat", 3),)).run()
    with Sandbox(most=1) as sandbox:
        found = sandbox.probe(f"{name}/media/cat/index.m3u8", "video", "")
        assert found.frames == FRAMES
        clip = sandbox.clip(f"{name}/media/cat/index.m3u8", 9, FPS, 32, 16, sha256=found.sha256)
    assert is_cat(Store(name), clip, FRAMES - 9)


def refusal(url, private: bool = False) -> str:
    with pytest.raises(MediaError) as caught:
        probe_media(str(url), "video", "", None, private)
    return str(caught.value)


def test_an_unfinished_video_or_one_that_lost_a_chunk_is_refused(root):
    path, text = playlist(root), playlist(root).read_text()
    path.write_text(text.replace("#EXT-X-ENDLIST\n", ""))
    assert refusal(path) == "is the playlist of a video that is not finished; accepted: that of one that is"
    path.write_text(text)
    sha256 = probe_media(str(path), "video", "").sha256
    chunk = sorted(path.parent.glob("00003.*.m4s"))[0]
    kept = chunk.read_bytes()
    chunk.unlink()
    assert refusal(path) == f"names {chunk.name}, which does not exist"
    chunk.write_bytes(kept[:-40])
    assert "is a damaged video" in refusal(path)
    other = sorted(path.parent.glob("00002.*.m4s"))[0].read_bytes()
    chunk.write_bytes(other)
    with pytest.raises(MediaError, match="is not the file any more that was checked"):
        load_clip(str(path), 9, FPS, 32, 16, sha256)
    (path.parent / "init.mp4").unlink()
    assert refusal(path) == "names init.mp4, which does not exist"


def test_nothing_but_names_beside_it_is_opened(root, tmp_path):
    path, text = playlist(root), playlist(root).read_text()
    chunk = sorted(path.parent.glob("00001.*.m4s"))[0].name
    strange = [
        "http://169.254.169.254/latest/meta-data", "/etc/passwd", "../dog/init.mp4", "file:///etc/passwd", "..",
        ".hidden",
        "a/b.m4s", "s3://bucket/key", "concat:init.mp4|init.mp4", "\\\\host\\share", "~/secret",
        "x?token=1", "%2e%2e/x",
    ]  # fmt: skip
    for name in strange:
        path.write_text(text.replace(chunk, name))
        assert "which is no file beside it; accepted: the index.m3u8" in refusal(path), name
        path.write_text(text.replace("init.mp4", name))
        assert "which is no file beside it" in refusal(path), name
    for tag in ('#EXT-X-KEY:METHOD=AES-128,URI="k"', "#EXT-X-BYTERANGE:10@0", "#EXT-X-STREAM-INF:BANDWIDTH=1"):
        path.write_text(text.replace("#EXTINF", f"{tag}\n#EXTINF", 1))
        assert f"holds {tag.partition(':')[0]!r}, as no index.m3u8 of a run does" in refusal(path)
    (path.parent / "torn.m4s").touch()
    path.write_text(text.replace("#EXTINF", "#EXTINF:1,\ntorn.m4s\n#EXTINF", 1))
    assert "names torn.m4s, which is empty" in refusal(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [(b"", "is empty|is no playlist"), (b"\x00\xff", "is no playlist"), (b"#EXTM3U\n#EXT-X-ENDLIST\n", "names 0 init"),
     (b"a,b\n#EXTM3U", "is no playlist"),
     (b'#EXTM3U\n#EXT-X-MAP:URI="a.mp4"\n#EXT-X-ENDLIST', "names 1 init.* 0 chunks"),
     (b'#EXTM3U\n#EXT-X-MAP:URI="a.mp4",BYTERANGE="3@0"\nb.m4s\n#EXT-X-ENDLIST', "no file beside it")],
)  # fmt: skip
def test_other_playlists_are_refused(tmp_path, text, says):
    (tmp_path / "a.m3u8").write_bytes(text)
    with pytest.raises(UnreadableError, match=says):
        hls.named(text)
    assert refusal(tmp_path / "a.m3u8")


def test_all_that_it_names_counts_against_the_limit(root, tmp_path):
    size = sum(len(each.read_bytes()) for each in playlist(root).parent.iterdir() if each.suffix in (".mp4", ".m4s"))
    with hls.whole(str(playlist(root)), size) as file:
        assert len(file.read()) == size
    with pytest.raises(UnreadableError, match="is larger than"), hls.whole(str(playlist(root)), size - 1):
        pass


@pytest.fixture
def server(root):
    def answer(to) -> None:
        path = root / to.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            to.send_error(404)
            return
        data = path.read_bytes()
        to.send_response(200)
        to.send_header("Content-Length", str(len(data)))
        to.end_headers()
        to.wfile.write(data)

    with serving(answer) as found:
        yield found


def test_from_the_web_every_chunk_is_under_the_rule_for_private_addresses(root, server):
    url = f"{server.url}/media/cat/index.m3u8?token=secret-of-a-stranger"
    assert "--allow-private-media" in refusal(url) and server.asked == []
    with Sandbox(private=True, most=1) as sandbox:
        assert sandbox.probe(url, "video", "").frames == FRAMES
    assert len(server.asked) == 1 + 1 + 6 and not any("token" in path for path in server.asked[1:])
    next(playlist(root).parent.glob("00005.*")).unlink()
    told = refusal(url, private=True)
    assert "names 00005." in told and "which does not exist" in told and "secret" not in told


def test_a_chunk_that_leads_to_a_private_address_is_not_followed(root, monkeypatch):
    """The playlist lies at a public address, its chunk is a redirect to this machine's own."""
    from flowcache.inputs import urls

    asked, plain = [], urls.download

    def public(url, file, limit, access=None, private=False):
        if url.startswith("http://127.0.0.1"):
            return plain(url, file, limit, access, private)
        asked.append((url, private))
        name = url.rpartition("/")[2]
        if name.startswith("00002"):
            return plain("http://127.0.0.1:9/chunk", file, limit, access, private)
        file.write((playlist(root).parent / name).read_bytes())

    monkeypatch.setattr(urls, "download", public)
    with pytest.raises(MediaError, match="names 00002.*--allow-private-media"):
        probe_media("http://1.1.1.1/cat/index.m3u8", "video", "")
    assert len(asked) == 5 and not any(private for _, private in asked)
