"""Videos that are encoded and decoded again and again, as continued ones are, keep their colours."""

import numpy as np
import pytest

from flowcache.storage.media import decode, encode_chunk

FPS, PASSES = 24, 6
SIDE = np.linspace(0, 255, 96)
ALONG, DOWN = np.tile(SIDE, (96, 1)), np.tile(SIDE[:, None], (1, 96))
PICTURES = {
    "grey": np.full((96, 96, 3), 127.0),
    "a colour": np.tile([40.0, 80.0, 160.0], (96, 96, 1)),
    "slopes": np.stack([ALONG, DOWN, ALONG[:, ::-1]], -1),
    "slopes to the left": np.stack([ALONG[:, ::-1], DOWN[::-1], ALONG], -1),
    "spots": np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(float),
}


@pytest.mark.parametrize("name", PICTURES)
def test_colours_do_not_drift(name):
    frames = begun = np.repeat(PICTURES[name][None], 4, 0).round().astype(np.uint8)
    means = [begun.mean((0, 1, 2))]
    for _ in range(PASSES):
        chunk = encode_chunk(frames, 0, FPS)
        frames = np.stack([pixels for pixels, _ in decode(chunk.init, [chunk.data])])
        means.append(frames.mean((0, 1, 2)))
    assert np.abs(means[1] - means[0]).max() < 1.5  # of 255: what eight bits of YUV can't say
    assert np.abs(means[-1] - means[1]).max() < 0.1 * (PASSES - 1)
