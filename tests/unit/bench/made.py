"""Rows as a run writes them, without a model."""

from flowcache.bench.table import Row

OFF = 100  # chunk forwards


def row(seed: int, policy: str, setting: str = "", forwards: int = OFF, **changed) -> Row:
    """A prompt for each seed; seconds and FLOPs go by the forwards."""
    said = {
        "model": "m", "prompt": f"prompt {seed}", "seed": seed, "policy": policy, "setting": setting,
        "chunk_forwards": forwards, "off_forwards": OFF, "flops": 10 * forwards, "seconds": forwards / 50,
        "kv_bytes": 2**20, "psnr": None if policy == "off" else 30.0, "ssim": None, "cvvdp": None,
        "psnr_converged": 30.0, "caption_right": True,
    }  # fmt: skip
    return Row(**{**said, **changed})
