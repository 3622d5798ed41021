"""hls.js in Chromium plays from an S3 server as docs/playing.md says: while the video grows, to its end, and back."""

import json
import re
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.support.ui import WebDriverWait

import flowcache
from flowcache.inputs.options import RunOptions
from flowcache.progress.events import SegmentCommitted
from flowcache.scheduler import inbox
from flowcache.storage import layout
from flowcache.storage.commits import list_commits, mark_done, put_playlist
from flowcache.storage.control import Command
from flowcache.storage.links import links
from flowcache.storage.objects.store import Store
from flowcache.storage.orders import became, order
from flowcache.storage.runs import begin_run
from tests import chromium
from tests.unit.storage.samples import FPS, Studio, plan, request

PAGE = (Path(__file__).parents[2] / "docs" / "playing.md").read_text()
HLS = Path(__file__).parent / "node_modules" / "hls.js" / "dist" / "hls.min.js"
SEGMENTS, FRAMES = 10, 8  # of a second each
PATIENCE = 120  # seconds: for a machine with other work
pytestmark = [
    chromium.needed,
    pytest.mark.skipif(not HLS.exists(), reason="no hls.js here: make hls"),
]


def fence(language: str, holding: str) -> str:
    """What the docs show."""
    return next(text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) if holding in text)


class Site(ThreadingHTTPServer):
    """Pages of an origin of their own."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        self.folder, self.origin = folder, f"http://127.0.0.1:{self.server_port}"
        (folder / "hls.min.js").write_bytes(HLS.read_bytes())
        (folder / "favicon.ico").write_bytes(b"")
        Thread(target=self.serve_forever, daemon=True).start()

    def page(self, address: str) -> str:
        """The address of the docs' page, playing this one."""
        text = re.sub(
            r'loadSource\("[^"]*"\)', lambda found: f"loadSource({json.dumps(address)})", fence("html", "Hls")
        )
        (self.folder / "page.html").write_text(text)
        return f"{self.origin}/page.html"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values) -> None:
        """Silent."""


class Player:
    """The page as a reader has it."""

    def __init__(self, browser):
        self.browser, self.said = browser, []

    def ask(self, expression: str):
        return self.browser.execute_script(f"return {expression}")

    def until(self, holds, what: str) -> None:
        try:
            WebDriverWait(self.browser, PATIENCE, 0.2).until(lambda _: holds())
        except TimeoutException:
            raise AssertionError(f"{what}; {self.state()}; {self.console()}") from None

    def console(self) -> list[dict]:
        """All that was said there since the page was opened; asked for, the browser forgets it."""
        self.said += self.browser.get_log("browser")
        return self.said

    def open(self, address: str) -> None:
        self.console()
        self.said = []
        self.browser.get(address)

    def state(self) -> dict:
        names = ("currentTime", "duration", "readyState", "paused", "ended", "videoWidth")
        return {name: self.ask(f"video.{name}") for name in names}

    def advances(self) -> None:
        begin = self.ask("video.currentTime")
        self.until(lambda: self.ask("video.currentTime") > begin + 0.3, f"it does not go on from {begin}")

    def live(self) -> bool:
        return self.ask("hls.latestLevelDetails && hls.latestLevelDetails.live")

    def listed(self) -> int:
        """Chunks that the player knows of."""
        return self.ask("hls.latestLevelDetails ? hls.latestLevelDetails.fragments.length : 0")

    def buffered(self) -> list[tuple[float, float]]:
        return self.ask(
            "Array.from({length: video.buffered.length}, (_, n) => [video.buffered.start(n), video.buffered.end(n)])"
        )

    def whole(self, seconds: float) -> bool:
        """Whether all of it, and nothing else, can be played without another request."""
        found = self.buffered()
        return len(found) == 1 and found[0][0] < 0.1 and abs(found[0][1] - seconds) < 0.1

    def errors(self) -> list[str]:
        return [one["message"] for one in self.console() if one["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def player(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield Player(browser)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.shutdown()


@pytest.fixture
def bucket(server, site):
    """A bucket of its own, with the docs' CORS rules for the site."""
    name = server.bucket()
    rules = json.loads(fence("json", "CORSRules").replace("https://player.example.com", site.origin))
    client(server, name).call_s3("put_bucket_cors", Bucket=name, CORSConfiguration=rules)
    return name


def client(server, bucket: str):
    return Store(f"s3://{bucket}/x", **server.options()).backend.fs


def opened(server, bucket: str) -> None:
    """Everybody may read media, by the docs' policy."""
    policy = fence("json", "s3:GetObject").replace(":::bucket/", f":::{bucket}/")
    client(server, bucket).call_s3("put_bucket_policy", Bucket=bucket, Policy=policy)


class Growing:
    """A video in the making: each `more` renders, uploads and commits a segment, and the driver's playlists follow."""

    def __init__(self, store: Store):
        self.studio = Studio(store, (request("cat", SEGMENTS),))
        begin_run(store, self.studio.record())
        self.left, self.markers = plan(self.studio.requests), []

    def more(self, segments: int) -> None:
        for _ in range(segments):
            self.markers.append(self.studio.render(self.left.pop(0), self.markers[-1] if self.markers else None))
            put_playlist(self.studio.store, "cat", self.markers, done=not self.left)
        if not self.left:
            mark_done(self.studio.store, "cat", self.markers)


def public(server, bucket: str, key: str) -> str:
    return f"{server.endpoint}/{quote(f'{bucket}/night/{key}')}"


def test_a_growing_video_is_played_and_in_the_end_all_of_it(server, bucket, site, player):
    """Named by its public master playlist; whoever seeks back sees the beginning again."""
    opened(server, bucket)
    growing = Growing(Store(f"s3://{bucket}/night", **server.options()))
    growing.more(3)
    player.open(site.page(public(server, bucket, layout.master_key("cat"))))
    player.until(lambda: player.ask("video.currentTime") > 0.2, "it does not begin")
    assert player.live() and player.listed() == 6
    assert player.ask("hls.levels[0].attrs.RESOLUTION") == "32x16" and player.ask("video.videoWidth") == 32
    level = player.ask("[hls.levels[0].videoCodec, hls.levels[0].bitrate, hls.levels[0].frameRate]")
    assert level[0].startswith("avc1.") and level[1] > 0 and level[2] == FPS

    growing.more(4)  # it is told of more without being loaded again
    player.until(lambda: player.listed() == 14, "it does not hear of the new chunks")
    player.until(lambda: player.ask("video.currentTime") > 3.2, "it does not go on with the new chunks")
    assert player.live()

    growing.more(3)
    player.until(lambda: not player.live(), "it does not hear of the end")
    whole = SEGMENTS * FRAMES / FPS
    player.until(lambda: abs(player.ask("video.duration") - whole) < 0.1, "it has another duration")
    player.until(lambda: player.ask("video.ended"), "it does not come to its end")
    player.ask("video.currentTime = 0.1, video.play()")
    player.advances()
    assert player.ask("video.currentTime") < whole - 1
    player.until(lambda: player.whole(whole), f"not all of it is there: {player.buffered()}")
    assert player.ask("[video.seekable.start(0), video.seekable.end(0)]") == pytest.approx([0, whole], abs=0.1)
    assert player.ask("video.error") is None and player.errors() == []
    assert player.ask(
        "video.getVideoPlaybackQuality().droppedVideoFrames < video.getVideoPlaybackQuality().totalVideoFrames"
    )


@dataclass
class PausesOnce:
    """Hears of a run, and tells it to pause as soon as something of it is committed."""

    store: Store
    command: Command | None = None

    def on(self, event) -> None:
        if isinstance(event, SegmentCommitted) and self.command is None:
            self.command = order(self.store, "pause")


@pytest.mark.slow
def test_a_render_through_ray_is_watched_while_it_goes_on(moto, site, player, cluster, monkeypatch):
    """As above, by the model, the gang and the driver themselves; it rests until the page has played what is there."""
    monkeypatch.setattr(inbox, "LOOK", 0.1)
    name, frames, fps = moto.bucket(), 249, 12
    opened(moto, name)
    store = Store(f"s3://{name}/night", **moto.options())
    row = {"id": "cat", "prompt": "a red circle moving right on a blue background", "frames": frames, "steps": 4}
    options, listener = RunOptions(address=cluster, gangs=1), PausesOnce(store)
    how = {"storage_options": moto.options(), "options": options, "progress": listener}
    with flowcache.start([row], output=store.url, **how) as run:
        player.until(lambda: store.exists(layout.master_key("cat")) and listener.command, "nothing is rendered")
        assert became(store, listener.command, PATIENCE).outcome == "obeyed"
        assert not list_commits(store).done
        player.open(site.page(public(moto, name, layout.master_key("cat"))))
        player.until(lambda: player.ask("video.currentTime") > 0.2, "it does not begin")
        assert player.live() and not list_commits(store).done
        known = player.listed()
        order(store, "resume")
        player.until(lambda: player.listed() > known, "it does not hear of the new chunks")
    assert run.wait().done == ("cat",)
    player.until(lambda: not player.live(), "it does not hear of the end")
    player.ask("video.currentTime = 0.1, video.play()")
    player.advances()
    player.until(lambda: player.whole(frames / fps), "not all of it is there")
    assert player.ask("video.videoWidth") == 64 and player.errors() == []


def test_a_link_plays_from_a_private_bucket(server, bucket, site, player):
    store = Store(f"s3://{bucket}/night", **server.options())
    Growing(store).more(SEGMENTS)
    assert store.get(layout.playlist_key("cat")).endswith(b"#EXT-X-ENDLIST\n")
    player.open(site.page(links(store, ["cat"], 3600)["cat"]))
    player.advances()
    player.until(lambda: player.whole(SEGMENTS * FRAMES / FPS), "not all of it is there")
    assert not player.live() and player.errors() == []


def test_without_the_rules_a_page_elsewhere_plays_nothing(ceph, site, player):
    """What the docs ask for is needed: moto lets every origin read."""
    name = ceph.bucket()
    opened(ceph, name)
    Growing(Store(f"s3://{name}/night", **ceph.options())).more(1)
    player.open(site.page(public(ceph, name, layout.master_key("cat"))))
    player.until(lambda: any("manifestLoadError" in one for one in player.errors()), "nothing is refused")
    assert player.ask("video.readyState") == 0


def test_the_policy_opens_media_alone(ceph):
    opened(ceph, name := ceph.bucket())
    Growing(Store(f"s3://{name}/night", **ceph.options())).more(1)
    with urlopen(public(ceph, name, layout.playlist_key("cat")), timeout=60) as answer:
        assert answer.headers["Content-Type"] == "application/vnd.apple.mpegurl"
        assert answer.headers["Cache-Control"] == "no-cache"
    with pytest.raises(HTTPError, match="403"):
        urlopen(public(ceph, name, layout.marker_key("cat", 0)), timeout=60)
