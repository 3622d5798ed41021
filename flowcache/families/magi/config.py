"""Shape of a MAGI-1 transformer."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class MagiConfig:
    """Published sizes: 4.5B is dim 3072, ffn 12288, 24 heads, 34 layers; 24B is 6144, 16384 gated, 48, 48.

    Both have 8 K/V heads of 128. 24B takes latents twice (`half_channel`), scaled by 0.1.
    """

    family: ClassVar[str] = "magi"
    dim: int
    ffn_dim: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    channels: int = 16  # of the latents
    text_dim: int = 4096
    text_len: int = 800
    condition_dim: int = 768  # a quarter of dim
    gated: bool = False
    half_channel: bool = False
    rescale: float = 1.0
    patch: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    positions: tuple[int, int] | None = None  # learned (rows, columns) in patches; no published model has them

    @property
    def model_channels(self) -> int:
        """Channels that the model itself takes and gives."""
        return self.channels * (2 if self.half_channel else 1)
