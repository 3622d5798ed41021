"""The report in headless Chromium, from a file: it plays, it draws, and hostile text stays text."""

import re

import pyarrow.dataset
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from flowcache.report.page import Limits, report_page
from flowcache.storage.objects.store import Store
from tests import chromium
from tests.unit.report.runs import PROMPT, hostile_run

pytestmark = chromium.needed


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    store = Store(str(folder / "out"))
    hostile_run(store)
    (folder / "report.html").write_text(report_page(store, "./out", Limits()))
    return folder


@pytest.fixture(scope="module")
def browser(output):
    with chromium.browser(output / "profile") as browser:
        browser.get((output / "report.html").as_uri())
        yield browser


def test_the_embedded_video_plays(browser):
    videos = browser.find_elements(By.TAG_NAME, "video")
    assert len(videos) == 2
    whole = videos[1]  # dead ones come first
    WebDriverWait(browser, 20).until(lambda _: whole.get_property("readyState") >= 1)
    assert whole.get_property("duration") == pytest.approx(24 / 8) and whole.get_property("videoWidth") == 32
    browser.execute_script("arguments[0].play()", whole)
    WebDriverWait(browser, 20).until(lambda _: whole.get_property("currentTime") > 0.2)
    assert whole.get_property("error") is None
    assert browser.execute_script("return arguments[0].getVideoPlaybackQuality().totalVideoFrames", whole) > 0


def test_the_map_has_as_many_cells_as_the_table(browser, output):
    rows = pyarrow.dataset.dataset(output / "out" / "meta" / "chunks", partitioning="hive").to_table().to_pylist()
    for kind, column in (("computed", "steps_computed"), ("reused", "steps_reused")):
        paths = browser.find_elements(By.CSS_SELECTOR, f"svg path.{kind}")
        cells = sum(int(n) for path in paths for n in re.findall(r"h(\d+)", path.get_attribute("d")))
        assert cells == sum(row[column] for row in rows) > 0
    drawn = [svg.size for svg in browser.find_elements(By.TAG_NAME, "svg")]
    assert drawn and all(size["width"] > 20 and size["height"] > 10 for size in drawn)


def test_hostile_text_is_shown_and_never_run(browser):
    assert browser.execute_script("return [document.title, window.hacked, document.scripts.length]")[1:] == [None, 0]
    assert browser.title.startswith("flowcache ")
    shown = [element.get_property("textContent") for element in browser.find_elements(By.CLASS_NAME, "prompt")]
    assert PROMPT in shown
    pictures = browser.find_elements(By.TAG_NAME, "img")
    assert len(pictures) == 2 and all(picture.get_property("naturalWidth") > 100 for picture in pictures)


def test_a_link_leads_to_the_media(browser, output):
    links = [element.get_attribute("href") for element in browser.find_elements(By.CSS_SELECTOR, ".chunks a")]
    chunks = {path.as_uri() for path in (output / "out" / "media").glob("*/*.m4s")}
    assert len(chunks) == 8 and set(links) == chunks


def test_the_console_is_quiet(browser):
    assert browser.get_log("browser") == []
