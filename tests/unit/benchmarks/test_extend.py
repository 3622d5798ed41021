"""The benchmark of extensions on a small run: what is done is listed, and asked for by nothing else."""

from benchmarks.extend import Extended


def test_an_extension_asks_for_nothing_of_what_is_done():
    made = []
    for videos in (30, 300):
        extended = Extended(videos, 5)
        assert extended.run().exit_code == 0  # what is done has empty objects: none of them can be read
        made.append(extended.made())
        new = sum(len(extended.scene.segments[request.id]) for request in extended.scene.requests[videos:])
        assert made[-1]["loop create marker"] == new and made[-1]["loop get marker"] == 0
        assert made[-1]["loop put meta"] == 5  # a part of each table, two generations, what they are made from
    of_new = {"init", "state", "owner", "media", "marker", "playlist", "master"}
    assert {name.split()[-1] for name in made[1] - made[0]} <= of_new  # these follow from the length of the new rows
