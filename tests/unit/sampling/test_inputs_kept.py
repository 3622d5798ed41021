"""What a window keeps of its inputs does not grow with it."""

import pytest
import torch
from torch import Tensor

from flowcache.cache.policy import Policy
from flowcache.models.base import VideoModel
from flowcache.sampling import chunk_inputs
from flowcache.sampling.latents import Given
from flowcache.sampling.records import Texts
from flowcache.sampling.window import Window
from tests.unit.parallel.cases import Case, model_of, settings_of

POLICIES = {"skyreels": Policy("off"), "magi": Policy("off", kv_update="refresh")}
CHUNKS = 8


def window(family: str) -> tuple[Window, VideoModel]:
    """Chunks that start one after another, so that a row's batches are others than those of the row before."""
    torch.manual_seed(0)
    case = Case(family, POLICIES[family], 2, 1, 1, CHUNKS, 4, 4, 4, 1, picture=False, end=False, seed=0)
    model = model_of(case).requires_grad_(False)
    texts = Texts(torch.randn(1, 3, 8), torch.randn(1, 3, 8))
    return Window(model, torch.randn(4, CHUNKS, 4, 4), texts, settings_of(case), case.policy, Given()), model


@pytest.mark.parametrize("family", list(POLICIES))
@torch.inference_mode()
def test_places_of_earlier_rows_are_forgotten(family):
    made, _ = window(family)
    for number, row in enumerate(made.plan.rows):
        made.run(number)
        assert len(made.inputs._ropes) <= len(row.forwards), number


@pytest.mark.parametrize("family", list(POLICIES))
@torch.inference_mode()
def test_a_text_is_made_once_however_many_rows_of_a_batch_see_it(family):
    made, model = window(family)
    real, seen = model.transform, []

    def transform(tokens, conditioning, texts, ropes, attend):
        seen.append((len(tokens), len({id(text) for text in texts})))
        return real(tokens, conditioning, texts, ropes, attend)

    model.transform = transform
    for number in range(len(made.plan.rows)):
        made.run(number)
    assert max(rows for rows, _ in seen) > CHUNKS and max(texts for _, texts in seen) <= 3


@pytest.mark.parametrize("family", list(POLICIES))
@torch.inference_mode()
def test_of_large_chunks_one_is_embedded_at_a_time(family, monkeypatch):
    monkeypatch.setattr(chunk_inputs, "LARGE_CHUNK", 3)
    made, model = window(family)
    assert made.inputs.grids[0].tokens > 3
    real, held = model.embed, []

    def embed(latents: Tensor) -> Tensor:
        held.append(len(made.inputs._tokens))
        return real(latents)

    model.embed = embed
    for number in range(len(made.plan.rows)):
        made.run(number)
    assert set(held) == {0}
