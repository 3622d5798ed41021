"""What is made of rows on K/V: figures, differences to what is free, Markdown and curve."""

import pytest

from flowcache.bench.curve import drawing
from flowcache.bench.kv_sections import kv_comparisons, kv_sections
from flowcache.bench.names import Entry
from flowcache.bench.sections import Told, as_markdown, sections
from flowcache.bench.summary import comparisons, lines
from tests.unit.bench.made import row

MIB = 2**20
DB = {  # setting -> MiB of K/V, PSNR to all K/V of two prompts, that of their last quarters
    Entry("kv-all"): (20, (None, None), (None, None)),
    Entry("kv-recent", "2"): (7, (20.0, 24.0), (18.0, 18.0)),
    Entry("kv-recent", "8"): (13, (30.0, 30.0), (29.0, 29.0)),
    Entry("kv-sink", "1+1"): (7, (21.0, 25.0), (17.0, 19.0)),
    Entry("kv-compressed", "2"): (7, (26.0, 24.0), (20.0, 22.0)),
}
ROWS = [
    row(seed, entry.policy, entry.setting, kv_bytes=mib * MIB, psnr=whole[seed], psnr_converged=None, chunks=20,
        psnr_first=None if last[seed] is None else 40.0, psnr_last=last[seed], colour_drift=2.0 + seed,
        caption_first=True, caption_last=seed == 0, seconds=mib / 10)
    for seed in range(2)
    for entry, (mib, whole, last) in DB.items()
]  # fmt: skip
STEPS = [row(seed, policy, setting) for seed in range(2) for policy, setting in (("off", ""), ("flowcache", "0.3"))]


def test_shares_are_of_all_kv_and_drift_goes_from_the_first_quarter_to_the_last():
    found = {line.entry: line for line in lines(ROWS + STEPS)}
    ours, every = found[Entry("kv-compressed", "2")], found[Entry("kv-all")]
    assert (ours.kv_share, ours.kv_bytes, every.kv_share) == (7 / 20, 7 * MIB, 1)
    assert ours.seconds_share == pytest.approx((0.35,) * 3)
    assert ours.off.mean[0] == 25 and ours.drift.psnr[0] == -19 and ours.drift.last == (21, 20, 22)
    assert ours.drift.colour[0] == 2.5 and ours.drift.captions_last[0] == 0.5 and ours.drift.captions_first == (1, 1, 1)
    assert every.off is None and every.drift.psnr is None and every.drift.colour[0] == 2.5
    assert found[Entry("flowcache", "0.3")].drift is None


def test_each_choice_stands_against_the_closest_simpler_one_of_no_more_bytes():
    found = kv_comparisons(ROWS, lines(ROWS))
    assert [(each.ours.entry.label, each.theirs.entry.label) for each in found] == [
        ("kv-sink:1+1", "kv-recent:2"), ("kv-compressed:2", "kv-sink:1+1"),
    ]  # fmt: skip
    assert found[0].whole.mean[0] == 1 and found[0].whole.better == 2 and found[0].last.mean == (0, -1, 1)
    assert found[1].whole.mean == (2, -1, 5) and (found[1].whole.better, found[1].last.better) == (1, 2)
    assert comparisons(ROWS + STEPS, "off") == []  # steps do not stand against K/V


def test_markdown_has_a_section_on_kv_beside_those_on_steps():
    every = lines(ROWS + STEPS)
    steps, told = [line for line in every if not line.entry.keeps], Told("t", "x", "off", {}, {Entry("paper"): "why"})
    more = kv_sections(every, kv_comparisons(ROWS, every), "no ColorVideoVDP")
    text = as_markdown(sections(told, steps, [], more))
    titles = [title for title in text.splitlines() if title.startswith("## ")]
    assert titles[-5:-1] == [f"## {section.title}" for section in more] and titles[-1] == "## Not measured"
    assert "| kv-all | 20.00 | 1.000 | 100 | 1.000 | 2.00 | 1.00 |" in text
    assert "| kv-compressed:2 | 25.0 (24.0 to 26.0) | 25.0 | 24.2 | 0 | - | - |" in text
    assert "| kv-compressed:2 | 40.0 | 21.0 (20.0 to 22.0) | -19.0 (-20.0 to -18.0) | 1.000 | 1.000 |" in text
    assert "| kv-all | - | - | - | 1.000 | 1.000 | 0.500 (0.000 to 1.000) | 2.5 (2.0 to 3.0) |" in text
    assert (
        "| kv-compressed:2 | kv-sink:1+1 | 0.350 / 0.350 | 2.0 (-1.0 to 5.0) | 2.0 | 1 of 2 | 3.0 | 3.0 | 2 of 2 |"
        in text
    )
    assert text.count("| kv-all |") == 2 and "same noise. no ColorVideoVDP." in text and "| off | -" in text


def test_without_kv_or_without_steps_nothing_is_said_of_them():
    told, alone = Told("t", "x", "off", {}), lines(ROWS)
    only = as_markdown(sections(told, [], [], kv_sections(alone, kv_comparisons(ROWS, alone))))
    assert "## K/V: costs" in only and "## Costs" not in only and "PSNR to off" not in only
    steps = lines(STEPS)
    assert "K/V: " not in as_markdown(sections(told, steps, [], kv_sections(steps, [])))


def test_the_curve_has_a_panel_over_bytes():
    drawn = drawing(lines(ROWS)).svg()
    assert "PSNR to all K/V, dB" in drawn and "bytes of K/V, share of all" in drawn and "PSNR to off" not in drawn
    assert "kv-recent:8: 30.0 dB (30.0 to 30.0) with 0.65 of the K/V" in drawn and "kv-all" not in drawn
    both = drawing(lines(ROWS + STEPS)).svg()
    assert both.count("share of off") == 2 and both.count("share of all") == 1
