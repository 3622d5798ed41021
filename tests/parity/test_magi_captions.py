"""MAGI-1's captions against the official ones: cleaned prompts, and every token that a chunk sees."""

import pytest
import torch

from flowcache.families.magi.captions import Captions, SpecialTokens
from flowcache.models.prompts import clean_magi

NAME = "magi_sampler_tiny"
SWITCHES = {"PAD_HQ": "hq", "PAD_STATIC": "static", "PAD_DYNAMIC": "dynamic", "PAD_BORDERNESS": "borderness"}


@pytest.mark.golden("magi_text_clean", "cases")
def test_prompts_are_cleaned_alike(case):
    assert clean_magi(case["input"]) == case["cleaned"]


@pytest.mark.golden(NAME, "runs")
def test_every_chunk_sees_the_same_tokens(golden, case):
    tensors, run = golden.tensors(NAME), case["name"]
    count = tensors["caption_mask"].sum()
    words = tensors["caption_embs"][0, :, :count]
    marks = [mark for switch, mark in SWITCHES.items() if switch in case["env"]]
    rows = tensors["special.other_tokens"].half().float()
    captions = Captions(lambda prompt: words, SpecialTokens(rows, marks, "PAD_DURATION" in case["env"]))
    masks = tensors[f"{run}.emb_masks"][0].bool()
    prompt = "" if case["empty_prompt"] else "a prompt"
    for chunk, mask in enumerate(masks):
        caption = captions.caption(prompt, len(masks) - 1 - chunk)
        if caption is None:
            assert case["empty_prompt"] and mask.sum() == 50  # the null caption, which the model has
        elif mask.any():  # not a chunk of a video that is continued
            assert torch.equal(mask, torch.arange(len(mask)) < caption.shape[1])
            if f"{run}.y_first12" in tensors:
                seen = tensors[f"{run}.y_first12"][0, chunk]
                assert torch.equal(caption[0, :12], seen[: caption.shape[1]])
