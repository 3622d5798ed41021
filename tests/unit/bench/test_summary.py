"""What is made of the rows: figures, comparisons, Markdown, curve and page."""

import io
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from flowcache.bench.curve import COLOURS, drawing
from flowcache.bench.names import Entry
from flowcache.bench.page import page
from flowcache.bench.sections import Told, as_markdown, sections
from flowcache.bench.summary import comparisons, lines
from tests.unit.bench.made import row

DB = {  # setting -> chunk forwards, PSNR to off and to converged of two prompts
    Entry("off"): (100, (None, None), (36.0, 38.0)),
    Entry("flowcache", "0.3"): (40, (40.0, 44.0), (35.0, 35.0)),
    Entry("fewer-steps", "0.3"): (42, (39.0, 14.0), (36.0, 35.0)),
    Entry("fewer-steps", "0.6"): (60, (50.0, 50.0), (36.0, 36.0)),
    Entry("paper", "fast"): (20, (20.0, 22.0), (20.0, 20.0)),
}
ROWS = [
    row(seed, entry.policy, entry.setting, forwards, psnr=off[seed], psnr_converged=far[seed], caption_right=seed == 0)
    for seed in range(2)
    for entry, (forwards, off, far) in DB.items()
]
TOLD = Told(
    "bench <m>", "32 prompts", "off", {Entry("flowcache", "0.3"): "9 of 30 steps"},
    {Entry("teacache", "slow"): "no <x>"}, {Entry("flowcache", "0.3"): 0.0123}, "no ColorVideoVDP (absent)",
)  # fmt: skip


def test_each_setting_has_its_figures():
    found = {line.entry: line for line in lines(ROWS)}
    assert list(found) == list(DB)
    fewer = found[Entry("fewer-steps", "0.3")]
    assert (fewer.forwards, fewer.forwards_share, fewer.flops_share, fewer.prompts) == (42, 0.42, 0.42, 2)
    assert fewer.seconds_share[0] == pytest.approx(0.42)
    assert fewer.off.mean[0] == fewer.off.median == 26.5 and fewer.off.tenth == 16.5 and fewer.off.another == 1
    assert fewer.captions == (0.5, 0, 1) and fewer.cvvdp is None
    exact = found[Entry("off")]
    assert exact.off is None and exact.converged.mean[0] == 37 and exact.converged.another == 0


def test_ours_is_compared_with_what_costs_no_more():
    found = comparisons(ROWS, "off")
    assert [(each.ours.entry.label, each.theirs.entry.label) for each in found] == [
        ("flowcache:0.3", "fewer-steps:0.3"), ("flowcache:0.3", "paper:fast"),
    ]  # fmt: skip
    assert found[0].off.mean[0] == 15.5 and (found[0].off.better, found[0].off.of) == (2, 2)
    assert found[0].converged.mean == (-0.5, -1, 0) and found[0].converged.better == 0
    assert found[1].off.mean[0] == 21


def test_what_is_closest_goes_by_the_target():
    swapped = [
        row(seed, policy, "x", 10, psnr=one, psnr_converged=other) if policy else row(seed, "off")
        for seed in range(2)
        for policy, one, other in [("", 0, 0), ("flowcache", 30, 30), ("magcache", 20, 25), ("paper", 25, 20)]
    ]
    closest = {target: comparisons(swapped, target)[0].theirs.entry.policy for target in ("off", "converged")}
    assert closest == {"off": "paper", "converged": "magcache"}


def test_without_a_converged_walk_nothing_is_said_of_it():
    rows = [row(each.seed, each.policy, each.setting, each.chunk_forwards, psnr_converged=None) for each in ROWS]
    titles = [section.title for section in sections(TOLD, lines(rows), comparisons(rows, "off"))]
    assert "PSNR to off" in titles and "PSNR to converged" not in titles
    assert comparisons(rows, "off")[0].converged is None


def test_markdown_says_figures_what_was_left_out_and_what_is_missing():
    text = as_markdown(sections(TOLD, lines(ROWS), comparisons(ROWS, "off")))
    assert text.startswith("# bench <m>\n\n32 prompts\n\n## Costs")
    assert "| flowcache:0.3 | 9 of 30 steps | 40 | 0.400 | 0.400 | 0.80 | 0.40 | 1.00 |" in text
    assert "| fewer-steps:0.3 | 26.5 (14.0 to 39.0) | 26.5 | 16.5 | 1 |" in text
    assert "| flowcache:0.3 | - | - | 0.500 (0.000 to 1.000) | 0.0123 |" in text
    assert (
        "| flowcache:0.3 | fewer-steps:0.3 | 40 / 42 | 15.5 (1.0 to 30.0) | 15.5 | 2 of 2 | -0.5 (-1.0 to 0.0) |"
        in text
    )
    assert "no ColorVideoVDP (absent)." in text and "- teacache:slow: no <x>" in text


def test_the_curve_is_drawn_twice_from_the_same_shapes():
    drawn = drawing(lines(ROWS))
    root = ElementTree.fromstring(drawn.svg())
    inside = "{http://www.w3.org/2000/svg}"
    titles = [title.text for title in root.iter(f"{inside}title")]
    assert "fewer-steps:0.3: 26.5 dB (14.0 to 39.0) at 42 chunk forwards" in titles
    assert sum(title.startswith("off") for title in titles) == 2  # to converged alone, and its name
    with Image.open(io.BytesIO(drawn.png())) as picture:
        shown = picture.convert("RGB")
        assert picture.size == (2 * drawn.width, 2 * drawn.height)
    dot = next(circle for circle in root.iter(f"{inside}circle") if circle.get("fill") == COLOURS[0])
    at = tuple(round(2 * float(dot.get(key))) for key in ("cx", "cy"))
    assert "#{:02x}{:02x}{:02x}".format(*shown.getpixel(at)) == COLOURS[0]


def test_equal_values_have_a_curve_too():
    same = [row(seed, policy, psnr_converged=30.0) for seed in range(2) for policy in ("off", "magcache")]
    assert drawing(lines(same)).png() and "nan" not in drawing(lines(same)).svg()


def test_the_page_loads_nothing_and_escapes_what_it_is_told():
    made = page(sections(TOLD, lines(ROWS), comparisons(ROWS, "off")), drawing(lines(ROWS)).svg())
    assert "bench &lt;m&gt;" in made and "no &lt;x&gt;" in made and "<svg" in made
    assert "src=" not in made and "href" not in made and "@import" not in made
