"""The page as text: what it says, what it refuses to hold, how large it gets. tests/e2e opens it in a browser."""

import base64
import io
import re
import uuid
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest

from flowcache.errors import InputError, Problem
from flowcache.records import Shot
from flowcache.report.page import Limits, link_base, report_page, share_out
from flowcache.storage.commits import DeadLetter, dead_letter, read_commits
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run, new_run
from tests.unit.report.runs import DEAD, PICTURE, PROMPT, SCRIPT, hostile_run
from tests.unit.storage.samples import DIGESTS, MAP, Studio, plan, request

VOID = {"meta", "img", "path", "br"}


class Page(HTMLParser):
    """Elements and text by the standard library's parser, which checks that they are nested properly."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, name):
        return [attributes[name] for found, attributes in self.elements if found == tag and name in attributes]


@pytest.fixture(scope="module")
def store():
    store = Store(f"memory://{uuid.uuid4().hex}")
    hostile_run(store)
    return store


@pytest.fixture(scope="module")
def text(store):
    return report_page(store, "../out", Limits())


def cells(page: Page, kind: str) -> int:
    paths = [attributes["d"] for tag, attributes in page.elements if tag == "path" and attributes["class"] == kind]
    return sum(int(length) for path in paths for length in re.findall(r"h(\d+)", path))


def test_other_peoples_text_stays_text(text):
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "link", "base", "form", "embed"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert all(source.startswith("data:") for source in page.all("img", "src") + page.all("video", "src"))
    assert PROMPT in page.texts and DEAD in page.texts and f"NaN {SCRIPT}" in page.texts
    assert any(text.endswith(PICTURE) and text.startswith("line\n") for text in page.texts)
    assert f"got {SCRIPT!r}" in page.texts and f"{PICTURE}.csv" in page.texts
    assert page.all("meta", "content")[0].startswith("default-src 'none'")


def test_the_map_has_the_cells_of_the_table(store, text):
    (part,) = store.list("meta/chunks")
    rows = pq.read_table(io.BytesIO(store.get(part.key))).to_pylist()
    assert len(rows) == 8 and {row["decisions"] for row in rows} == {MAP}
    page = Page(text)
    assert cells(page, "computed") == sum(row["steps_computed"] for row in rows) == 48
    assert cells(page, "reused") == sum(row["steps_reused"] for row in rows) == 16
    assert text.count("<svg") == 4  # two videos, two guidance branches


def test_states_and_totals(text):
    tiles = re.search('id="totals">(.*?)</ul>', text, re.DOTALL)[1]
    assert re.findall(r"<b>(.*?)</b>(.*?)</li>", tiles) == [
        ("1 of 3", "videos done"), ("1", "waiting"), ("1", "dead"), ("2", "rows rejected"), ("8 of 12", "chunks"),
        ("4.0 s", "of video, " + re.search(r"of video, (.*?)<", tiles)[1]), ("25 %", "of 64 steps reused"),
        ("10 s", "of ranks' time"),
        ("2.5 s", "from first start to last commit"), ("4.0 KiB", "most K/V on a rank"),
    ]  # fmt: skip


def test_a_budget_says_what_became_of_it(text):
    calibrated = "calibrated at guidance 2.5, calibrated to the converged walk, predicted error 0.0001"
    said = f"(budget 0.6, {calibrated}, residuals up to 0.75 times what calibration saw, {{}})"
    assert said.format("renders given up: 3, of 90 forwards") in text
    assert said.format("renders given up: 1, of 30 forwards") in text


def test_the_embedded_video_is_the_whole_one(text):
    sources = Page(text).all("video", "src")
    frames = []
    for source in sources:
        with av.open(io.BytesIO(base64.b64decode(source.removeprefix("data:video/mp4;base64,")))) as file:
            frames.append(sum(1 for _ in file.decode(video=0)))
    assert frames == [8, 24]  # dead ones come first


def test_what_is_over_the_limits_is_counted(store):
    chunk = read_commits(store).markers["good"][0].chunks[0].bytes
    page = report_page(store, None, Limits(cards=2, rows=1, chunks=3, page_bytes=4 * chunk, video_bytes=3 * chunk))
    assert page.count("<article") == 2 and page.count("<svg") == 4 and "The first 3 chunks are shown" in page
    assert "2 of 3 videos are shown" in page and "1 of 3 videos are shown" in page
    assert "over the limits of this page" in page and "<a href=" not in page.replace('<a href="#v1"', "")


def test_the_limits_hold_over_all_videos():
    class Played:
        def __init__(self, *sizes):
            self.playable = [type("Chunk", (), {"bytes": size}) for size in sizes]

    limits = Limits(video_bytes=10, page_bytes=25)
    assert share_out([Played(4, 4, 4), Played(11), Played(), Played(9), Played(9), Played(8)], limits) == [
        2,
        0,
        0,
        1,
        0,
        1,
    ]


def test_a_large_run_gives_a_small_page():
    """Thousands of videos, none begun: a row for each of each, and the first ones in full."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    requests = tuple(request(f"v{number}", 1) for number in range(5000))
    begin_run(store, new_run(requests, DIGESTS, plan(requests), "0.1.0"))
    page = report_page(store, None, Limits())
    assert page.count("<article") == 100 and "5000 of" not in page and "100 of 5,000 videos are shown" in page
    assert len(page) < 2_000_000


def test_failures_are_complete_however_many_they_are():
    store = Store(f"memory://{uuid.uuid4().hex}")
    requests = tuple(request(f"v{number}", 1) for number in range(300))
    problems = [Problem("f", "x", f"fault {number} {'m' * 500}", number, None) for number in range(300)]
    begin_run(store, new_run(requests, DIGESTS, plan(requests), "0.1.0", problems))
    for number in range(300):
        dead_letter(store, DeadLetter(f"v{number}", 0, 0, f"cause {number} {'c' * 500}", "work", 3, "last words", None))
    page = report_page(store, None, Limits(cards=10, rows=5))
    failures, rejected = (
        re.search(f'id="{name}">(.*?)</table>', page, re.DOTALL)[1] for name in ("failures", "rejected")
    )
    assert re.findall(r"cause (\d+) ", failures) == re.findall(r"fault (\d+) ", rejected) == [*map(str, range(300))]
    assert failures.count("last words") == failures.count("c" * 500) == rejected.count("m" * 500) == 10
    assert "All 300 failures are here; the first 10 with up to 2,000 characters" in page and "All 300 faults" in page


def test_endless_texts_are_cut():
    store = Store(f"memory://{uuid.uuid4().hex}")
    wanted = request("cat", 1, shots=tuple(Shot("p" * 100_000, 8) for _ in range(30)))
    begin_run(store, new_run((wanted,), DIGESTS, (), "0.1.0", [Problem("f", "x", "m" * 100_000, 1, None)]))
    dead_letter(store, DeadLetter("cat", 0, 0, "c" * 100_000, "work", 3, "", None))
    page = report_page(store, None, Limits())
    assert "and 10 more shots" in page and page.count("p…") == 20 and len(page) < 100_000


def test_damaged_media_do_not_stop_the_report():
    store = Store(f"memory://{uuid.uuid4().hex}")
    studio = Studio(store, (request("cat", 1), request("dog", 1)))
    studio.run()
    store.put(read_commits(store).markers["cat"][0].chunks[0].key, b"torn")
    page = report_page(store, None, Limits())
    assert "Its media can't be shown" in page and "holds 0 frames of 4" in page
    assert page.count("<video ") == 1


def test_chunks_of_older_versions_have_no_map():
    store = Store(f"memory://{uuid.uuid4().hex}")
    Studio(store, (request("cat", 1),), later=()).run()
    page = report_page(store, None, Limits())
    assert "without recording the decision" in page and "<svg" not in page


def test_the_limits_are_the_documented_ones():
    text, limits = (Path(__file__).parents[3] / "docs" / "knowing.md").read_text(), Limits()
    table = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| ")][1:]
    assert [cell.partition(" ")[0] for cell in table] == ["100", "10,000", "2", "200", "2,000"]
    assert (limits.cards, limits.rows, limits.chunks) == (100, 10_000, 200)
    assert (limits.video_bytes, limits.page_bytes) == (2 << 20, 32 << 20) and "32 MiB in all" in table[2]


def test_links(tmp_path, store, text):
    assert '<a href="../out/media/good/index.m3u8">' in text and "../out/media/dead/" in text
    local = Store(str(tmp_path / "runs" / "a b"))
    assert link_base(local, tmp_path / "r.html", None) == "./runs/a%20b"
    assert link_base(local, Path(tmp_path / "runs" / "a b" / "r.html"), None) == "./."
    assert link_base(Store("s3://bucket/x"), tmp_path / "r.html", None) is None
    assert link_base(local, tmp_path / "r.html", "https://host/x/") == "https://host/x"
    for hostile in ("javascript:alert(1)", "data:text/html,x", "JaVaScRiPt:1"):
        with pytest.raises(InputError, match="accepted"):
            link_base(local, tmp_path, hostile)


def test_a_chain_that_goes_on_with_other_hardware_says_so():
    store = Store(f"memory://{uuid.uuid4().hex}")
    first = Studio(store, (request("cat", 3),))
    begin_run(store, first.record())
    segments, parent = plan(first.requests), None
    for segment, device in zip(segments, ("H100", "H100", "A100"), strict=True):
        parent = replace(first, hardware={"device": device, "torch": "2.13"}).render(segment, parent)
    (told,) = [text for text in Page(report_page(store, None, Limits())).texts if "after device" in text]
    assert told == "segment 2 on device A100, torch 2.13, after device H100, torch 2.13"


def test_a_chain_of_older_markers_says_nothing_of_hardware():
    store = Store(f"memory://{uuid.uuid4().hex}")
    Studio(store, (request("cat", 3),), later=(), hardware=None).run()
    assert "Other hardware" not in report_page(store, None, Limits())
