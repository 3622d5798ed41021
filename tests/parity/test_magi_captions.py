"""MAGI-1's captions against the official ones: cleaned prompts, and every token that a chunk sees."""

import pytest
import torch

from flowcache.models.prompts import clean_magi
from tests.parity.magi_runs import Run

NAME = "magi_sampler_tiny"


@pytest.mark.golden("magi_text_clean", "cases")
def test_prompts_are_cleaned_alike(case):
    assert clean_magi(case["input"]) == case["cleaned"]


@pytest.mark.parametrize("name", ["magi_text_clean_drawn"])
def test_drawn_prompts_are_cleaned_alike(golden, name):
    """Entities with and without an end, tags of every kind, names, addresses, joined at random."""
    found = golden.facts(name) or pytest.skip(f"the folder has no {name}")
    told = {case["input"]: (clean_magi(case["input"]), case["cleaned"]) for case in found["cases"]}
    assert {prompt: pair for prompt, pair in told.items() if pair[0] != pair[1]} == {}


@pytest.mark.golden(NAME, "runs")
def test_every_chunk_sees_the_same_tokens(golden, case):
    compare(case, golden.tensors(NAME))


@pytest.mark.golden("magi_sampler_drawn", "runs")
def test_drawn_tokens(golden, case):
    compare(case, golden.tensors(NAME) | golden.tensors("magi_sampler_drawn"))


def compare(case, tensors):
    run, null = Run.of(case, tensors), tensors["null_caption_embedding"][None, :50]
    texts, masks = run.texts(null), tensors[f"{case['name']}.emb_masks"].bool()
    absent = null if texts.negative is None else texts.negative
    first = tensors.get(f"{case['name']}.y_first12")
    places = torch.arange(masks.shape[-1])
    for chunk in range(run.chunks):
        caption = absent if texts.positive[chunk] is None else texts.positive[chunk]
        for row, seen in enumerate((caption, absent)):
            mask = masks[row, chunk]
            if row == 0 and not mask.any():
                continue  # a chunk of a video that is continued
            assert torch.equal(mask, places < seen.shape[1])
            if first is not None:
                official = first[row, chunk]
                assert torch.equal(seen[0, : len(official)], official[: seen.shape[1]])
