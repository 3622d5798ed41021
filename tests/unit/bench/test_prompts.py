"""Prompts: new ones by each seed, the same ones by the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from flowcache.bench.judge import verdict_of
from flowcache.bench.prompts import MOST, draw, for_ratios, read
from flowcache.errors import InputError
from flowcache.families.registry import find


@pytest.fixture(params=["tiny-skyreels", "tiny-magi", "real"])
def spec(request):
    if request.param != "real":
        return find(request.param)
    return replace(find("tiny-skyreels"), vocabulary=())


def test_more_prompts_begin_with_the_same_and_another_seed_draws_others(spec):
    few, many = draw(spec, 3, 5), draw(spec, 20, 5)
    assert many[:3] == few and [each.seed for each in few] == [5000, 5001, 5002]
    assert len({each.text for each in many}) > 10
    others = draw(spec, 20, 6)
    assert not {each.seed for each in many} & {each.seed for each in others}
    assert [each.text for each in others] != [each.text for each in many]


def test_scenes_are_known_where_the_world_is(spec):
    for each in draw(spec, 9, 0):
        assert (each.scene is not None) == bool(spec.vocabulary)
        if each.scene:
            assert set(each.text.split()) <= set(spec.vocabulary)
            assert verdict_of(each.scene).colour in each.text


@pytest.mark.parametrize("changed", [{"vocabulary": ("cat", "dog")}, {"width": 128}])
def test_a_model_with_words_that_nobody_knows_needs_a_file(changed):
    with pytest.raises(InputError, match="--prompts FILE"):
        draw(replace(find("tiny-magi"), **changed), 1, 0)


def test_prompts_of_a_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\n  two  \nthree\n")
    assert [(each.text, each.seed, each.scene) for each in read(file, 2, 7)] == [
        ("one", 7000, None),
        ("two", 7001, None),
    ]
    with pytest.raises(InputError, match="holds 3 prompts; accepted: at least 4"):
        read(file, 4, 7)
    with pytest.raises(InputError, match="can't be read"):
        read(tmp_path / "missing", 1, 7)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
def test_prompts_without_an_end_are_refused():
    with pytest.raises(InputError, match="is larger than 100,000,000 bytes; accepted: a prompt a line"):
        read(Path("/dev/zero"), 1, 7)


def test_ratios_are_measured_with_noise_of_their_own(spec):
    prompts = draw(spec, 3, 2)
    assert for_ratios(prompts, 2).seed == 2000 + MOST not in [each.seed for each in prompts]
