"""A video at a fraction of frames a second, and one that goes on from what the first run wrote."""

from fractions import Fraction

import av

from tests.e2e.rows import row

FILM = Fraction(24000, 1001)


def test_a_night_goes_on_from_another_ones_playlist_and_export(render, flowcache, tmp_path):
    first = render([row("cat", fps=23.976)], to=tmp_path / "first")
    assert first.code == 0, first.err
    root = tmp_path / "first"
    assert flowcache("verify", root).code == 0
    assert flowcache("export", root, "--to", tmp_path / "films").code == 0
    with av.open(str(tmp_path / "films/cat.mp4")) as film:
        assert film.streams.video[0].average_rate == FILM
        times = [frame.pts * frame.time_base for frame in film.decode(video=0)]
    assert times == [number / FILM for number in range(21)]
    went_on = {"frames": 12, "fps": "24000/1001"}
    rows = [
        row("by-playlist", video=str(root / "media/cat/index.m3u8"), seed=1, **went_on),
        row("by-export", video=str(tmp_path / "films/cat.mp4"), seed=1, **went_on),
    ]
    second = render(rows, to=tmp_path / "second")
    assert second.code == 0, second.err
    assert flowcache("verify", tmp_path / "second").code == 0
    chunks = [sorted((tmp_path / f"second/media/{name}").glob("*.m4s")) for name in ("by-playlist", "by-export")]
    assert [one.read_bytes() for one in chunks[0]] == [one.read_bytes() for one in chunks[1]] != []
    report = flowcache("report", tmp_path / "second", "--to", tmp_path / "report.html")
    assert report.code == 0 and "frames at 24000/1001 a second" in (tmp_path / "report.html").read_text()
