"""Frame rates as people write them, and what comes of them: exact, from the row to the last chunk."""

import json
from decimal import Decimal
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.errors import InputError
from flowcache.inputs.given import Given, checked
from flowcache.inputs.job import merged
from flowcache.inputs.media import load_clip
from flowcache.inputs.rates import ACCEPTED, rate
from flowcache.inputs.schema import RowDefaults
from flowcache.inputs.selection import Selection, settings
from flowcache.inputs.where import where
from flowcache.records import RenderRequest, read_rate, write_rate

FILM, TELEVISION = Fraction(24000, 1001), Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (24, 24), (24.0, 24), ("24/1", 24), ("24", 24), (" 24.0 ", 24), ("25", 25),
        ("23.976", FILM), ("29.97", TELEVISION), (str(24000 / 1001), FILM), ("12.5", Fraction(25, 2)),
        (1, 1), (120, 120),
        (23.976, FILM), (23.98, FILM), ("24000/1001", FILM), (" 24000 / 1001 ", FILM), (24000 / 1001, FILM),
        (float(np.float32(23.976)), FILM), (float(np.float32(29.97)), TELEVISION),
        (float(np.float32(12.5)), Fraction(25, 2)),
        (23.976024, FILM), (Decimal("23.976"), FILM), (FILM, FILM),
        (29.97, TELEVISION), ("30000/1001", TELEVISION), (59.94, Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)), (47.952, Fraction(48000, 1001)), (14.985, Fraction(15000, 1001)),
        (12.5, Fraction(25, 2)), (7.25, Fraction(29, 4)), (50 / 3, Fraction(50, 3)), ("2997/100", Fraction(2997, 100)),
    ],
)  # fmt: skip
def test_rates_are_exact_and_decimals_of_television_mean_it(written, meant):
    found = rate(written)
    assert found == meant and isinstance(found, int) == (Fraction(meant).denominator == 1)
    assert read_rate(json.loads(json.dumps(write_rate(found)))) == meant


BAD = [
    *(
        0,
        -24,
        121,
        0.999,
        120.01,
        1e300,
        float("inf"),
        24.1234,
        Decimal("1e-99999999"),
        10**400,
        Decimal("NaN"),
        Decimal("sNaN"),
        True,
        [24],
    ),
    *("fast", "24/0", "1/2", "240/1", "24000/1001/1", "-24/1", "24001/1002", ""),
    *("24.1234", "121", "0", "24.", ".5", "1e2", "24 fps", "2_4"),
]


def test_other_rates_are_refused_with_what_is_accepted():
    for written in (*BAD, float("nan"), None):
        with pytest.raises(ValueError):
            rate(written)
    problems = checked(Given([{"prompt": "a red circle", "fps": written} for written in BAD])).problems
    assert [problem.row for problem in problems] == list(range(1, len(BAD) + 1))
    assert all(each.field == "fps" and each.message.endswith(f"accepted: {ACCEPTED}") for each in problems)


@given(st.floats() | st.decimals() | st.fractions() | st.text(max_size=20) | st.integers())
def test_whatever_is_written_is_a_rate_in_range_or_refused(written):
    try:
        found = rate(written)
    except ValueError:
        return
    assert 1 <= found <= 120 and Fraction(found).denominator <= 1001


def request_of(**row) -> RenderRequest:
    found = checked(Given([{"id": "a", "prompt": "a red circle", **row}]))
    assert not found.problems, found.problems
    return found.requests[0]


def test_a_row_keeps_its_rate_and_whole_ones_their_ids():
    asked = request_of(fps=23.976, seconds=2)
    assert asked.fps == FILM and asked.nominal_fps == 24
    assert asked.frames == request_of(fps=24, seconds=2).frames
    told = json.loads(json.dumps(asked.to_dict()))
    assert told["fps"] == "24000/1001" and RenderRequest.from_dict(told) == asked
    rows = [
        {"prompt": "a red circle", "fps": one}
        for one in (24, 24.0, "24/1", "24", 23.976, "24000/1001", 24000 / 1001, "23.976")
    ]
    ids = []
    for row in rows:
        ids += [checked(Given([row])).requests[0].id]
    assert len(set(ids[:4])) == 1 and len(set(ids[4:])) == 1 and ids[0] != ids[4]


def test_jobs_settings_and_tables_know_fractions(tmp_path):
    (tmp_path / "job.yaml").write_text("manifest: a.jsonl\noutput: out\ndefaults: {fps: 30000/1001}\n")
    job = merged(tmp_path / "job.yaml")
    assert job.row_defaults().fps == TELEVISION
    assert job.model_dump(mode="json", exclude_none=True)["defaults"]["fps"] == "30000/1001"
    (tmp_path / "other.yaml").write_text("manifest: a.jsonl\noutput: out\ndefaults: {fps: '29.97'}\n")
    assert merged(tmp_path / "other.yaml").defaults.fps == TELEVISION
    (tmp_path / "bad.yaml").write_text("manifest: a.jsonl\noutput: out\ndefaults: {fps: 0.5}\n")
    with pytest.raises(InputError, match=f"bad.yaml: defaults.fps: got 0.5; accepted: {ACCEPTED}"):
        merged(tmp_path / "bad.yaml")
    (tmp_path / "a.csv").write_text(
        "id,prompt,fps\na,a red circle,23.976\nb,a red circle,24000/1001\nc,a red circle,24\n"
    )
    found = checked(Given(str(tmp_path / "a.csv")))
    assert [one.fps for one in found.requests] == [FILM, FILM, 24]
    for written in ("23.976", "24000/1001"):
        values = settings([f"fps={written}"], {})
        assert checked(Given([{"prompt": "a"}], RowDefaults(), Selection(values=values))).requests[0].fps == FILM
    with pytest.raises(InputError, match=f"--set: fps: got 'slow'; accepted: {ACCEPTED}"):
        settings(["fps=slow"], {})


@pytest.mark.parametrize(
    ("condition", "ids"),
    [("fps = 23.976", "ab"), ("fps = 24000/1001", "ab"), ("fps = '24000/1001'", "ab"),
     ("fps = '23.976'", "ab"), ("fps > '23'", "abc"),
     ("fps >= 24", "c"),
     ("fps < 24", "ab"), ("fps != 24", "ab"), ("fps = 24", "c"), ("fps > 200", ""), ("fps <= 200", "abc")],
)  # fmt: skip
def test_conditions_compare_rates(condition, ids):
    rows = [{"id": "a", "fps": "23.976"}, {"id": "b", "fps": "24000/1001"}, {"id": "c", "fps": 24}, {"id": "d"}]
    test = where(condition).holds
    assert "".join(row["id"] for row in rows if test(row)) == ids


def test_a_video_of_television_gives_each_of_its_frames_once(tmp_path):
    """96 frames at 24000/1001 and 30000/1001: sampled at their own rate each is taken, at 24 none is lost to drift."""
    for fps in (FILM, TELEVISION):
        path = str(tmp_path / "a.mp4")
        with av.open(path, "w") as out:
            stream = out.add_stream("libx264", rate=fps)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for number in range(96):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 2 * number, np.uint8), "rgb24")))
            out.mux(stream.encode(None))
        shown = load_clip(path, 96, fps, 32, 32)[:, 16, 16, 0].astype(int)
        assert np.abs(shown - 2 * np.arange(96)).max() <= 1
        slower = load_clip(path, 95, round(fps), 32, 32)[:, 16, 16, 0].astype(int)
        assert np.abs(np.diff(slower) - 2).max() <= 2
