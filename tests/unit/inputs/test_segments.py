from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.families.magi.pipeline import Pipeline
from flowcache.inputs.segments import plan
from flowcache.records import ModelSpec, RenderRequest, Shot

TINY = ModelSpec("tiny", "skyreels", "", "", chunk=3, window=15, overlap=3, channels=16)
P540 = ModelSpec("540p", "skyreels", "", "", chunk=5, window=25, overlap=5, channels=16)
WHOLE = ModelSpec("whole", "skyreels", "", "", chunk=6, window=24, overlap=6, channels=16, causal=False)


def request(*shots: Shot, **fields) -> RenderRequest:
    common = dict(width=64, height=64, fps=12, seed=1, guidance=3.0, steps=4, model="tiny", policy={"name": "off"})
    return RenderRequest(id="v", shots=shots, **{**common, **fields})


def test_official_540p_windows():
    """97 frames first, then 80 more a window (spec: base_num_frames 97, overlap_history 17)."""
    segments = plan(request(Shot("a", 97 + 80 + 80)), P540)
    assert [s.frames for s in segments] == [97, 80, 80]
    assert [s.chunks for s in segments] == [5, 4, 4]
    assert [s.after for s in segments] == [None, 0, 1]


def test_without_a_causal_codec_all_chunks_are_alike():
    """Fresh or not: 6 latent frames of 4 video frames each."""
    segments = plan(request(Shot("a", 96 + 72), Shot("b", 24, cut=True)), WHOLE)
    assert [(s.chunks, s.frames, s.start_frame) for s in segments] == [(4, 96, 0), (3, 72, 96), (1, 24, 168)]
    with pytest.raises(ValueError, match="93 frames"):
        plan(request(Shot("a", 93)), WHOLE)


CHUNKED = replace(WHOLE, family="magi", pipeline=Pipeline())


def test_magi_ends_inside_a_chunk_and_runs_on_where_asked_to():
    assert [(s.chunks, s.frames) for s in plan(request(Shot("a", 93)), CHUNKED)] == [(4, 93)]
    assert [(s.chunks, s.frames) for s in plan(request(Shot("a", 96 + 73)), CHUNKED)] == [(4, 96), (3, 72), (1, 1)]
    shots = Shot("a", 96 + 72), Shot("b", 48, cut=False), Shot("c", 30)
    segments = plan(request(*shots, segment="all"), CHUNKED)
    assert [(s.shot, s.chunks, s.frames, s.after) for s in segments] == [(0, 9, 216, None), (2, 2, 30, None)]


def test_last_window_may_be_shorter():
    assert [s.frames for s in plan(request(Shot("a", 57 + 12)), TINY)] == [57, 12]


def test_video_shorter_than_a_window():
    assert [s.frames for s in plan(request(Shot("a", 9)), TINY)] == [9]


def test_continuing_a_video_has_no_single_first_frame():
    (segment,) = plan(request(Shot("a", 48), video="in.mp4"), TINY)
    assert (segment.chunks, segment.frames, segment.after) == (4, 48, None)


def test_a_cut_starts_a_chain_of_its_own():
    segments = plan(request(Shot("a", 57), Shot("b", 21, cut=True), Shot("c", 12, cut=False)), TINY)
    assert [(s.shot, s.frames, s.after) for s in segments] == [(0, 57, None), (1, 21, None), (2, 12, 1)]


@pytest.mark.parametrize("frames", [8, 10, 58, 0])
def test_lengths_off_the_grid_are_refused(frames):
    with pytest.raises(ValueError, match=f"{frames} frames"):
        plan(request(Shot("a", frames)), TINY)


@st.composite
def shots(draw, spec):
    cuts = draw(st.lists(st.booleans(), min_size=1, max_size=5))
    made = []
    for number, cut in enumerate(cuts):
        fresh = cut or number == 0
        first = spec.first_chunk_frames if fresh else spec.chunk_frames
        made.append(Shot(f"shot {number}", first + spec.chunk_frames * draw(st.integers(0, 20)), cut))
    return made


@given(st.sampled_from([TINY, P540, WHOLE]).flatmap(lambda spec: st.tuples(st.just(spec), shots(spec))))
def test_segments_tile_the_video(case):
    spec, made = case
    wanted = request(*made)
    segments = plan(wanted, spec)
    assert sum(s.frames for s in segments) == wanted.frames
    assert [s.index for s in segments] == list(range(len(segments)))
    for before, after in zip(segments, segments[1:], strict=False):
        assert after.start_frame == before.start_frame + before.frames
        assert after.first_chunk == before.first_chunk + before.chunks
        assert after.shot - before.shot in (0, 1)
        assert after.after == before.index or (wanted.shots[after.shot].cut and after.shot == before.shot + 1)
    assert all(s.chunks * spec.chunk + (spec.overlap if s.after is not None else 0) <= spec.window for s in segments)
