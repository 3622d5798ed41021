from collections import Counter
from dataclasses import replace

import pytest
import torch

from flowcache.families.registry import find, load_model
from flowcache.families.skyreels.preset_steps import computed_steps
from flowcache.families.skyreels.weights import load_time_embedding
from flowcache.inputs.segments import plan
from flowcache.records import RenderRequest, Shot
from flowcache.worker.renderer import SegmentRenderer


@pytest.mark.parametrize("preset", ["slow", "fast"])
def test_as_many_steps_as_rendering_computes(preset):
    torch.set_num_threads(1)
    spec = replace(find("tiny-skyreels"), steps=12)
    model = load_model("tiny-skyreels")
    request = RenderRequest(
        id="v", shots=(Shot("a red circle", spec.first_chunk_frames),), width=64, height=64, fps=spec.fps, seed=1,
        guidance=1.0, steps=12, model=spec.name, policy={"name": "paper", "preset": preset},
    )  # fmt: skip
    (segment,) = plan(request, spec)
    rendered = [done.computed for done in SegmentRenderer(model, request, segment, None).finished()]
    embedding = load_time_embedding(f"{spec.path}/transformer")
    counted = computed_steps(embedding, spec)
    assert rendered == [counted[preset]]
    assert Counter(p.is_meta for p in embedding.blocks.parameters()).keys() == {True}  # the rest was not read
