import torch
from hypothesis import given
from hypothesis import strategies as st

from flowcache.records import ModelSpec, RenderRequest, Segment, Shot
from flowcache.worker.noise import normal, window_noise

SPEC = ModelSpec("tiny", "skyreels", "", "", chunk=3, window=15, overlap=3, channels=4)


def request(seed: int) -> RenderRequest:
    return RenderRequest("v", (Shot("p", 57),), 32, 16, 12, seed, 3.0, 4, model="tiny", policy={"name": "off"})


@given(st.integers(0, 2**63 - 1), st.integers(0, 50), st.integers(1, 5), st.integers(1, 5))
def test_a_chunks_noise_does_not_depend_on_its_window(seed, chunk, before, after):
    """Cut the video anywhere else, and a chunk still gets the same noise."""

    def of(first, chunks):
        return window_noise(SPEC, request(seed), Segment("v", 0, 0, first, chunks, 0, 1), 0)

    alone, among = of(chunk + before, 1), of(chunk, before + after)
    assert torch.equal(alone, among[:, before * SPEC.chunk : (before + 1) * SPEC.chunk])


def test_noise_is_standard_normal_and_differs_by_seed_and_chunk():
    noise = normal((64, 64, 64), "chunk", 1, 2)
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    for key in (("chunk", 1, 3), ("chunk", 2, 2), ("condition", 1, 2)):
        other = normal((64, 64, 64), *key)
        assert abs((noise * other).mean()) < 0.01


def test_the_prefix_gets_no_noise_of_its_own():
    noise = window_noise(SPEC, request(1), Segment("v", 1, 0, 5, 2, 57, 24, after=0), prefix=3)
    assert noise.shape == (4, 9, 2, 4) and not noise[:, :3].any() and noise[:, 3:].all()
